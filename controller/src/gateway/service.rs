//! One request through the gateway: who asks, for what, may they, on record, forward.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_pki::verify::{Peer, PeerError};
use culvert_tunnel::{CallOptions, Hub, Upgraded};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::access;
use super::audit::Line;
use super::body::{Answer, Upload};
use super::live::{self, Lease, LiveCalls, Right};
use super::metrics::VerbClass;
use super::record::{Books, Record};
use super::request::{Malformed, RequestInfo, Verb, split_cluster};
use super::status::{Reason, Refusal};
use super::{failure, headers, upgrade};
use crate::app::{App, Target};
use crate::domain::Caller;
use crate::supervise::Supervisor;
use crate::telemetry;

/// Until the head of an answer that is no stream must be there: the API server gives up its
/// own requests after 60 s and says so itself.
const DEADLINE: Duration = Duration::from_secs(65);
/// How long a request waits for an agent that is just reconnecting.
const WAIT_FOR_AGENT: Duration = Duration::from_secs(5);
/// Characters of a text of the caller's that the audit keeps.
const KEPT: usize = 512;

/// Said when a right ends between two steps.
const ENDED: &str = "the right to this request has just ended";

/// The room; clones share it.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) app: App,
    pub(crate) hub: Hub,
    pub(crate) live: LiveCalls,
    pub(crate) books: Books,
}

/// A connection at the door.
#[derive(Clone)]
pub(crate) struct Visit {
    gateway: Gateway,
    source: SocketAddr,
    peer: Arc<Option<Result<Peer, PeerError>>>,
}

/// A request that may be carried out.
struct Errand<'a> {
    info: RequestInfo,
    path: &'a str,
    caller: &'a Caller,
    target: Target,
    request_id: &'a str,
}

impl Gateway {
    /// A connection from `source` that showed `chain`, leaf first.
    pub(crate) fn visit(&self, source: SocketAddr, chain: &[CertificateDer<'static>]) -> Visit {
        let peer = Arc::new(access::introduce(&self.app, chain));
        Visit { gateway: self.clone(), source, peer }
    }

    /// Starts the task that ends calls whose right has ended.
    pub(crate) fn start(&self, supervisor: &Supervisor) {
        let (app, live, stop) = (self.app.clone(), self.live.clone(), supervisor.stopping().clone());
        supervisor.keep("guard of live calls", move || live.clone().guard(app.clone(), stop.clone()));
    }
}

impl Visit {
    /// Answers one request.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<Answer> {
        let request_id = telemetry::request_id();
        let mut answer = match self.handle(request, &request_id).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.answer(&request_id),
        };
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            answer.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
        }
        answer
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        request_id: &str,
    ) -> Result<Response<Answer>, Refusal> {
        let begun = Instant::now();
        let gateway = &self.gateway;
        let seen = *gateway.app.revocations().borrow();
        let peer = self.peer.as_ref().as_ref();
        let caller = match access::authenticate(&gateway.app, request.headers(), peer, self.source).await {
            Ok(caller) => caller,
            Err(refusal) => {
                tracing::debug!(request_id, source = %self.source, cause = refusal.cause, "request without a caller");
                gateway.books.metrics.answered(VerbClass::Other, refusal.reason.status(), begun.elapsed());
                return Err(refusal);
            }
        };
        let Ok(slot) = gateway.books.spool.slot().await else {
            let message = "the audit cannot be written at the moment, so nothing is carried out";
            return Err(Refusal::new(Reason::ServiceUnavailable, "audit_unavailable", message).retry_after(5));
        };
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let split = split_cluster(&target);
        let parsed = split.as_ref().map(|(_, path)| RequestInfo::parse(request.method(), path));
        let info = parsed.as_ref().and_then(|parsed| parsed.as_ref().ok());
        let line = line(&request, &caller, self.source, request_id, info);
        let mut record = Record::begin(gateway.books.clone(), slot, line, VerbClass::of(info), begun);
        let may = self.decide(&request, &caller, split.as_ref().map(|(name, _)| *name), parsed).await;
        let (info, target) = match may {
            Ok(may) => may,
            Err(refusal) => return Err(refused(record, request_id, refusal)),
        };
        record.of_cluster(&target.cluster.to_string());
        if let Err(refusal) = self.take_lease(&caller, &target, &info, seen, &mut record).await {
            return Err(refused(record, request_id, refusal));
        }
        let path = split.as_ref().map_or("/", |(_, path)| path.as_ref());
        self.forward(request, Errand { info, path, caller: &caller, target, request_id }, record).await
    }

    /// Whether the request may be carried out, and where.
    async fn decide(
        &self,
        request: &Request<Incoming>,
        caller: &Caller,
        cluster: Option<&str>,
        parsed: Option<Result<RequestInfo, Malformed>>,
    ) -> Result<(RequestInfo, Target), Refusal> {
        let (Some(cluster), Some(parsed)) = (cluster, parsed) else {
            let message = "there is nothing at this path; clusters are at /clusters/<id or name>/";
            return Err(Refusal::new(Reason::NotFound, "no_cluster_in_path", message));
        };
        let info = parsed.map_err(|error| Refusal::new(Reason::BadRequest, "path", error.to_string()))?;
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            let message = format!("{} is not for Kubernetes", request.method());
            return Err(Refusal::new(Reason::MethodNotAllowed, "method", message));
        }
        headers::refuse_impersonation(request.headers())?;
        Ok((info, access::authorise(&self.gateway.app, caller, cluster).await?))
    }

    /// Lists the request as under way. Rights that were taken away since the caller was
    /// authenticated, `seen` ago, are noticed here; those taken away later, by the guard.
    async fn take_lease(
        &self,
        caller: &Caller,
        target: &Target,
        info: &RequestInfo,
        seen: u64,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        let right =
            Right { cluster: target.cluster, caller: caller.clone(), restarts: info.verb == Verb::Watch };
        record.hold(self.gateway.live.begin(right.clone()));
        if *self.gateway.app.revocations().borrow() != seen
            && live::still(&self.gateway.app, &right).await != Ok(true)
        {
            return Err(Refusal::new(Reason::Forbidden, "access_revoked", ENDED));
        }
        Ok(())
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        errand: Errand<'_>,
        mut record: Record,
    ) -> Result<Response<Answer>, Refusal> {
        let wanted = headers::wanted_upgrade(request.headers()).cloned();
        let change = wanted.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let streams = errand.info.streams() || wanted.is_some();
        let options = CallOptions {
            deadline: (!streams).then_some(DEADLINE),
            request_id: errand.request_id.to_owned(),
            traceparent: traceparent(request.headers()),
            wait_for_agent: WAIT_FOR_AGENT,
        };
        let call = async {
            let request = outgoing(request, errand.path, wanted.as_ref(), &record)?;
            let caller = access::caller_of(&errand.target, errand.caller, errand.request_id);
            let cluster = self.gateway.hub.cluster(errand.target.agent).with_caller(caller);
            let answer = cluster.call(request, options).await;
            answer.map_err(|error| failure::refusal(&error, errand.target.cluster_name.as_str()))
        };
        let answered = match record.lease().map(Lease::ended) {
            Some(ended) => tokio::select! {
                answered = call => answered,
                () = ended => Err(Refusal::new(Reason::Forbidden, "access_ended", ENDED)),
            },
            None => call.await,
        };
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(refusal) => return Err(refused(record, errand.request_id, refusal)),
        };
        record.answered(answer.status(), "");
        if streams {
            record.streams();
        }
        match (Upgraded::take(&mut answer), change) {
            (Some(cluster), Some(caller)) => {
                self.gateway
                    .books
                    .supervisor
                    .work("upgraded connection", upgrade::pump(caller, cluster, record));
                let mut switched = Response::new(Answer::Own(None));
                *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                *switched.headers_mut() = headers::upgraded(answer.headers());
                Ok(switched)
            }
            (None, _) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
                let (mut parts, body) = answer.into_parts();
                let base = format!("/clusters/{}", errand.target.cluster);
                parts.headers = headers::towards_caller(&parts.headers, &base, &errand.info);
                parts.extensions.clear();
                Ok(Response::from_parts(parts, Answer::forward(body, record)))
            }
            _ => {
                let message = "the cluster changed the protocol without being asked";
                Err(refused(
                    record,
                    errand.request_id,
                    Refusal::new(Reason::InternalError, "protocol", message),
                ))
            }
        }
    }
}

/// The request as it goes to the cluster. Its path is the one that was parsed, byte for byte.
fn outgoing(
    request: Request<Incoming>,
    path: &str,
    upgrade: Option<&HeaderValue>,
    record: &Record,
) -> Result<Request<Upload>, Refusal> {
    let (parts, body) = request.into_parts();
    let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()))
        .map_err(|_| Refusal::new(Reason::BadRequest, "path", "the path has characters that no path has"))?;
    let mut outgoing = Request::new(Upload::new(body, record.moved()));
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = Uri::from(path);
    *outgoing.headers_mut() = headers::towards_cluster(&parts.headers, upgrade);
    Ok(outgoing)
}

fn refused(mut record: Record, request_id: &str, refusal: Refusal) -> Refusal {
    record.answered(refusal.reason.status(), refusal.cause);
    tracing::debug!(request_id, cause = refusal.cause, message = %refusal.message, "request refused");
    refusal
}

fn traceparent(headers: &HeaderMap) -> String {
    let value = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    kept(value)
}

fn kept(text: &str) -> String {
    text.chars().take(KEPT).collect()
}

fn line(
    request: &Request<Incoming>,
    caller: &Caller,
    source: SocketAddr,
    request_id: &str,
    info: Option<&RequestInfo>,
) -> Line {
    let resource = info.and_then(|info| info.resource.as_ref());
    let part =
        |of: fn(&super::request::Resource) -> &String| resource.map(|r| kept(of(r))).unwrap_or_default();
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Line {
        time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        request_id: request_id.to_owned(),
        org: caller.org().to_string(),
        actor: caller.actor().name(),
        actor_id: caller.actor().id(),
        credential: caller.credential().kind.as_str(),
        credential_id: caller.credential().id.clone(),
        source: source.to_string(),
        method: kept(request.method().as_str()),
        path: kept(request.uri().path()),
        verb: info.map_or("", |info| info.verb.as_str()),
        group: part(|r| &r.group),
        version: part(|r| &r.version),
        resource: part(|r| &r.resource),
        subresource: part(|r| &r.subresource),
        namespace: part(|r| &r.namespace),
        name: part(|r| &r.name),
        user_agent: kept(user_agent.unwrap_or_default()),
        ..Line::default()
    }
}
