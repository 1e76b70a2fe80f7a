//! Carries out calls: asks the policy, dials, and passes bytes both ways.
//!
//! The tunnel hands over a [`Call`]; what comes back is a [`Reply`] that still
//! streams, or a [`Failure`] in words for the caller. Nothing is buffered beyond
//! what a connection holds: a body is read only as fast as the other end takes it.
//!
//! Mistakes a newcomer could make:
//! - To time a body. A watch or a log lives for days; only dialling is timed, and
//!   the answer's head when the controller set a deadline.
//! - To take a host from the request. The API server's address comes from the
//!   agent's own settings, a TCP target's from the policy file.
//! - To check the policy and then enter the call: a change in between is missed.
mod api_server;
mod headers;
mod live;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use culvert_tunnel::{Body, Call, Failure, FailureCode, Handler, Kind, Reply};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::causes::one_line;
use crate::policy::request::Request as Asked;
use crate::policy::{Denial, DenialKind, Policy};
pub use api_server::{AccessError, ApiServer, kube_config};
use api_server::{SendError, dial_tcp};
use live::{Guarded, Live, Subject, Ticket};

/// Carries out the calls of all connections.
#[derive(Clone)]
pub struct Forwarder {
    api: ApiServer<Body>,
    policy: watch::Receiver<Arc<Policy>>,
    live: Live,
}

impl Forwarder {
    /// A forwarder to this API server under this policy.
    pub fn new(api: ApiServer<Body>, policy: watch::Receiver<Arc<Policy>>) -> Forwarder {
        Forwarder { api, policy, live: Live::default() }
    }

    /// Cuts calls that a changed policy forbids, until `stop`.
    pub async fn enforce(&self, stop: CancellationToken) {
        let mut policy = self.policy.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = policy.changed() => if changed.is_err() { return },
            }
            let current = Arc::clone(&policy.borrow_and_update());
            let cut = self.live.review(&current);
            if cut > 0 {
                tracing::warn!(calls = cut, "calls cut, the policy no longer allows them");
            }
        }
    }

    /// Enters the call, then asks the policy: a change after this cuts it.
    fn admit(&self, subject: Subject) -> Result<Ticket, Failure> {
        let ticket = self.live.enter(subject.clone());
        self.recheck(&subject)?;
        Ok(ticket)
    }

    fn recheck(&self, subject: &Subject) -> Result<(), Failure> {
        let policy = Arc::clone(&self.policy.borrow());
        subject.check(&policy).map_err(denied)
    }

    async fn request(&self, call: Call, upgrade: bool) -> Result<Reply, Failure> {
        let Call { mut request, caller, deadline, .. } = call;
        let asked = Asked::read(request.method(), request.uri());
        let (user, groups) = (caller.user.clone(), caller.groups.clone());
        let subject = Subject::Request { request: asked, user, groups };
        let ticket = self.admit(subject.clone())?;
        headers::outgoing(request.headers_mut(), &caller, upgrade).map_err(|headers::Unwritable| {
            Failure::new(FailureCode::Denied, "the caller's name or groups cannot be put into a header")
        })?;
        let sent = self.send(request, deadline);
        let response = tokio::select! {
            response = sent => response?,
            () = ticket.cut() => {
                self.recheck(&subject)?;
                return Err(Failure::new(FailureCode::Denied, "the cluster's local policy changed"));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            upgraded(response, upgrade, ticket).await
        } else {
            let mut response = response.map(|body| Guarded::new(body, ticket).boxed_unsync());
            headers::incoming(response.headers_mut(), false);
            Ok(Reply::Http(response))
        }
    }

    async fn send(
        &self,
        request: Request<Body>,
        deadline: Option<Duration>,
    ) -> Result<Response<Incoming>, Failure> {
        let sent = self.api.send(request);
        let answer = match deadline {
            None => sent.await,
            Some(limit) => tokio::time::timeout(limit, sent).await.map_err(|_| {
                let message = format!("the API server did not answer within {} ms", limit.as_millis());
                Failure::new(FailureCode::Timeout, message)
            })?,
        };
        answer.map_err(|error| match error {
            SendError::Path => Failure::new(FailureCode::Denied, "the request's path cannot be sent"),
            SendError::Unreachable(why) => Failure::new(
                FailureCode::Unreachable,
                format!("the agent cannot reach its API server: {why}"),
            ),
            SendError::Broken(why) => {
                Failure::new(FailureCode::Internal, format!("the API server broke the request off: {why}"))
            }
        })
    }

    async fn tcp(&self, name: &str, deadline: Option<Duration>) -> Result<Reply, Failure> {
        let subject = Subject::Target(name.to_owned());
        let ticket = self.admit(subject)?;
        let address = self.policy.borrow().check_target(name).map_err(denied)?.clone();
        let limit = deadline.unwrap_or(api_server::DIAL_TIMEOUT);
        let unreachable = |why: String| {
            Failure::new(
                FailureCode::Unreachable,
                format!("the agent cannot reach the target `{name}`: {why}"),
            )
        };
        let tcp = match tokio::time::timeout(limit, dial_tcp(&address.host, address.port)).await {
            Ok(dialled) => dialled.map_err(|error| unreachable(error.to_string()))?,
            Err(_) => return Err(unreachable("dialling timed out".to_owned())),
        };
        Ok(Reply::Stream { head: Response::new(()), io: Box::new(Guarded::new(tcp, ticket)) })
    }
}

impl Handler for Forwarder {
    async fn handle(&self, call: Call) -> Result<Reply, Failure> {
        let span = tracing::debug_span!("call", request_id = one_line(&call.request_id));
        let user = one_line(&call.caller.user);
        let carried = async {
            match &call.kind {
                Kind::Http => self.request(call, false).await,
                Kind::Upgrade => self.request(call, true).await,
                Kind::Tcp(target) => {
                    let (target, deadline) = (target.clone(), call.deadline);
                    self.tcp(&target, deadline).await
                }
            }
        };
        let reply = carried.instrument(span.clone()).await;
        if let Err(failure) = &reply {
            let _entered = span.entered();
            // The owner of the cluster finds here what was kept out, whatever the controller tells.
            tracing::info!(
                user,
                code = failure.code.as_str_name(),
                reason = failure.message,
                "call not carried out"
            );
        }
        reply
    }
}

async fn upgraded(mut response: Response<Incoming>, asked: bool, ticket: Ticket) -> Result<Reply, Failure> {
    let broken = |why: String| Failure::new(FailureCode::Internal, format!("the upgrade failed: {why}"));
    if !asked {
        return Err(broken("the API server switched protocols unasked".to_owned()));
    }
    let io = hyper::upgrade::on(&mut response).await.map_err(|error| broken(error.to_string()))?;
    headers::incoming(response.headers_mut(), true);
    Ok(Reply::Stream { head: response.map(|_| ()), io: Box::new(Guarded::new(TokioIo::new(io), ticket)) })
}

fn denied(denial: Denial) -> Failure {
    let code = match denial.kind {
        DenialKind::Denied => FailureCode::Denied,
        DenialKind::Paused => FailureCode::Paused,
        DenialKind::UnknownTarget => FailureCode::UnknownTarget,
    };
    Failure::new(code, denial.message)
}
