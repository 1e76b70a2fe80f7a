//! One call at the agent, in one task: understand it, have it handled, answer.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::open;
use futures::FutureExt as _;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderValue, Method, Uri};
use prost::Message as _;

use super::{Call, Handler, Kind, Reply};
use crate::copy::copy;
use crate::holder::Holder;
use crate::stream::{Batch, Gatherer, Group, Inbound, Ledger, Outbound, SharedDuplex, Side, Source};
use crate::wire::{CallId, Chunk, WireError, headers_from_wire, headers_to_wire};
use crate::{Body, BodyError, Failure, FailureCode, Limits};

/// How often a reply's body is asked again before its head goes out alone, when
/// the body is known to be short: it is on its way from the target's own task.
const SECOND_LOOKS: usize = 2;

/// What all calls of a session share.
pub(super) struct Session {
    pub(super) send: SendRequest<Chunk>,
    pub(super) limits: Limits,
    pub(super) ledger: Ledger,
    pub(super) group: Arc<Group>,
}

/// What the streams of one connection share.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) ledger: &'a Ledger,
    pub(crate) group: &'a Arc<Group>,
}

/// A call as it came, understood.
pub(crate) struct Parsed {
    id: CallId,
    call: Call,
    /// The whole request was in `Open`.
    pub(crate) whole: bool,
    first: Bytes,
}

/// Understands an `Open`.
pub(crate) fn parse(id: CallId, open: proto::Open) -> Result<Parsed, WireError> {
    let (kind, request) = match open.kind.ok_or(WireError::Malformed)? {
        open::Kind::Http(request) => (Kind::Http, request_head(request)?),
        open::Kind::Upgrade(request) => (Kind::Upgrade, request_head(request)?),
        open::Kind::Tcp(target) => (Kind::Tcp(target.target), http::Request::new(())),
    };
    let whole = kind == Kind::Http && open.body_end;
    let (first, body) =
        if whole { (Bytes::new(), Body::full(open.body)) } else { (open.body, Body::empty()) };
    let call = Call {
        kind,
        request: request.map(|()| body),
        caller: open.caller.unwrap_or_default(),
        request_id: open.request_id,
        traceparent: open.traceparent,
        deadline: (open.deadline_ms > 0).then(|| Duration::from_millis(open.deadline_ms)),
    };
    Ok(Parsed { id, call, whole, first })
}

fn request_head(head: proto::HttpRequest) -> Result<http::Request<()>, WireError> {
    let mut request = http::Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(|_| WireError::Malformed)?;
    if !head.path.starts_with('/') {
        return Err(WireError::Malformed);
    }
    *request.uri_mut() = Uri::try_from(head.path).map_err(|_| WireError::Malformed)?;
    *request.headers_mut() = headers_from_wire(head.headers)?;
    Ok(request)
}

/// Carries out one call. Whatever happens, the controller hears of it: by an
/// answer, a failure or a reset.
pub(super) async fn answer<H: Handler>(session: Arc<Session>, parsed: Parsed, handler: H) {
    if parsed.whole {
        let result = handled(&handler, parsed.call).await;
        let Some((response, stream)) = open_answer(&session, parsed.id).await else { return };
        let outbound = Outbound::new(Some(stream), Side::Agent, session.limits.max_frame);
        let inbound = Inbound::new(Source::Closed, Side::Agent, 0);
        let duplex = SharedDuplex::new(inbound, outbound);
        if reply(&session.limits, &duplex, result, true).await {
            settle(response, &duplex).await;
        }
    } else {
        let Some((response, stream)) = open_answer(&session, parsed.id).await else { return };
        let outbound = Outbound::new(Some(stream), Side::Agent, session.limits.max_frame);
        let inbound = Inbound::new(Source::Response(response), Side::Agent, session.limits.max_head);
        let duplex = SharedDuplex::new(inbound, outbound);
        let ground = Ground { limits: &session.limits, ledger: &session.ledger, group: &session.group };
        carry(ground, duplex, parsed, |call| async move { handled(&handler, call).await }).await;
    }
}

/// Carries a call out whose stream has begun: `work` gives the reply, or the head that
/// says why there is none. It is dropped when the caller gives up.
pub(crate) async fn carry<F>(
    ground: Ground<'_>,
    duplex: SharedDuplex,
    parsed: Parsed,
    work: impl FnOnce(Call) -> F,
) where
    F: Future<Output = Result<Reply, proto::Head>>,
{
    let Parsed { call, whole, first, .. } = parsed;
    let _registration = ground.ledger.register(&duplex, ground.group);
    let has_reader = call.kind == Kind::Http && !whole;
    let call = if has_reader { with_body(call, first, &duplex, ground.limits) } else { call };
    let aborted = poll_fn(|cx| duplex.lock().poll_aborted(cx));
    let result = tokio::select! {
        biased;
        _ = aborted => return,
        result = work(call) => result,
    };
    if reply(ground.limits, &duplex, result, whole).await && !whole {
        if !has_reader {
            // Whatever was to be read of an upgrade has been, or never will be.
            duplex.lock().release_reader();
        }
        poll_fn(|cx| duplex.lock().poll_settled(cx)).await;
    }
}

async fn handled<H: Handler>(handler: &H, call: Call) -> Result<Reply, proto::Head> {
    let work = AssertUnwindSafe(handler.handle(call)).catch_unwind();
    let failed = |_| Err(Failure::new(FailureCode::Internal, "the agent failed while it handled the call"));
    work.await.unwrap_or_else(failed).map_err(failure_head)
}

fn failure_head(failure: Failure) -> proto::Head {
    proto::Head { failure: Some(failure.into()), ..proto::Head::default() }
}

fn with_body(call: Call, first: Bytes, duplex: &SharedDuplex, limits: &Limits) -> Call {
    let length = call.request.headers().get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let holder = Holder::new(duplex.clone(), false, None);
    let body = Body::stream(first, holder, limits.merge, length);
    Call { request: call.request.map(|_| body), ..call }
}

async fn open_answer(session: &Session, id: CallId) -> Option<(ResponseFuture, SendStream<Chunk>)> {
    let mut send = session.send.clone();
    poll_fn(|cx| send.poll_ready(cx)).await.ok()?;
    let mut request = http::Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = Uri::from_static("https://culvert/culvert.tunnel.v1.Tunnel/Answer");
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    headers.insert("culvert-call", HeaderValue::from_bytes(&id.hex()).ok()?);
    send.send_request(request, false).ok()
}

/// Sends the reply to its end; says whether it went well.
async fn reply(
    limits: &Limits,
    duplex: &SharedDuplex,
    result: Result<Reply, proto::Head>,
    whole: bool,
) -> bool {
    let done = match result {
        Ok(Reply::Http(response)) => reply_http(limits, duplex, response).await,
        Ok(Reply::Stream { head, io }) if !whole => {
            let sent = duplex.lock().outbound.send_head(wire_head(&head, true), Bytes::new(), None);
            match sent {
                Ok(()) => copy(io, duplex.clone(), Bytes::new(), limits.merge)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
        Ok(Reply::Stream { .. }) => {
            let failure = Failure::new(FailureCode::Internal, "a stream answers no plain request");
            fail(duplex, failure_head(failure))
        }
        Err(head) => fail(duplex, head),
    };
    if let Err(error) = &done {
        tracing::debug!(error, "call given up");
        duplex.lock().end(BodyError::Aborted, Reason::CANCEL);
    }
    done.is_ok()
}

fn wire_head(head: &http::Response<()>, upgrade: bool) -> proto::Head {
    proto::Head {
        status: u32::from(head.status().as_u16()),
        headers: headers_to_wire(head.headers(), upgrade),
        failure: None,
    }
}

fn fail(duplex: &SharedDuplex, head: proto::Head) -> Result<(), String> {
    let sent = duplex.lock().outbound.send_head(head, Bytes::new(), Some(Vec::new()));
    sent.map_err(|error| error.to_string())
}

async fn reply_http(
    limits: &Limits,
    duplex: &SharedDuplex,
    response: http::Response<super::ReplyBody>,
) -> Result<(), String> {
    let (parts, body) = response.into_parts();
    let head = wire_head(&http::Response::from_parts(parts, ()), false);
    if head.encoded_len() > limits.max_head {
        let failure = Failure::new(FailureCode::Internal, "the head of the target's answer is too long");
        return fail(duplex, failure_head(failure));
    }
    let mut gatherer = Gatherer::new(body, limits.merge);
    let first = first_batch(&mut gatherer, limits.merge as u64).await?;
    let (payload, end) = match first {
        None => (Bytes::new(), None),
        Some(mut batch) => {
            // What does not fit into one frame waits for credit as the rest does.
            let payload = batch.data.split_to(batch.data.len().min(limits.merge));
            if batch.data.is_empty() {
                (payload, batch.end)
            } else {
                gatherer.resume(batch);
                (payload, None)
            }
        }
    };
    let whole = end.is_some();
    duplex.lock().outbound.send_head(head, payload, end).map_err(|error| error.to_string())?;
    if whole {
        return Ok(());
    }
    gatherer.send_all(duplex, || ()).await.map_err(|error| error.to_string())
}

/// What the body has ready. A body known to be short gets a second look.
async fn first_batch(gatherer: &mut Gatherer<super::ReplyBody>, short: u64) -> Result<Option<Batch>, String> {
    let looks = if gatherer.length().is_some_and(|length| length <= short) { SECOND_LOOKS } else { 0 };
    for look in 0..=looks {
        match poll_fn(|cx| Poll::Ready(gatherer.poll_batch(cx))).await {
            Poll::Ready(batch) => return batch.map(Some).map_err(|error| error.to_string()),
            Poll::Pending if look < looks => tokio::task::yield_now().await,
            Poll::Pending => {}
        }
    }
    Ok(None)
}

/// Waits for the controller's own end of the stream, so that dropping our side
/// does not reset what has just been sent.
async fn settle(response: ResponseFuture, duplex: &SharedDuplex) {
    let aborted = poll_fn(|cx| duplex.lock().poll_aborted(cx));
    tokio::select! {
        biased;
        _ = response => {}
        _ = aborted => {}
    }
}
