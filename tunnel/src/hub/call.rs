//! One call, from the request to the answer's head.
//!
//! The caller's own future does it all: it puts `Open` into the queue, waits for
//! the answer's stream and reads its head. A task is started only for a request
//! body that is longer than what rides in `Open`. An agent that is connected to another
//! replica is reached through that one, and the rest is the same.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::open::Kind;
use h2::{Reason, SendStream};
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::queue::PushError;
use super::session::{Answer, CancelGuard, Pending, Session, Told};
use super::way::{Search, Way};
use super::{AgentKey, CallOptions, Hub};
use crate::holder::{Holder, OpenCall};
use crate::peer::{Forwarded, forward, trouble_in};
use crate::stream::{Broken, Gatherer, Group, Inbound, Outbound, SharedDuplex, Side, Source};
use crate::wire::{self, CallId, Chunk, WireError, headers_from_wire};
use crate::{Body, BodyError, BoxError, CallError, Limits, RejectReason, Upgraded};

/// Times a call is offered again after a session would not take it any more.
const OFFERS: usize = 3;

/// What a call sends.
pub(super) struct Request<B> {
    pub(super) kind: Kind,
    pub(super) caller: proto::Caller,
    pub(super) body: B,
    /// Only to a session of this replica.
    pub(super) here: bool,
}

/// The head of an answer, and the call's hold.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    holder: Holder,
}

/// The part of a body that was ready, and the rest of it.
struct Prepared<B> {
    first: Bytes,
    rest: Option<Gatherer<B>>,
}

/// Makes a call and waits for the answer's head.
pub(super) async fn call<B>(
    hub: &Hub,
    agent: AgentKey,
    request: Request<B>,
    options: &CallOptions,
) -> Result<Answered, CallError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    hub.0.counters.calls.fetch_add(1, Ordering::Relaxed);
    let limits = &hub.0.limits;
    let stream = !matches!(request.kind, Kind::Http(_));
    let Prepared { first, rest } = prepare(request.body, limits).await?;
    let mut open = proto::Open {
        deadline_ms: options.deadline.map_or(0, |deadline| deadline.as_millis() as u64),
        caller: Some(request.caller),
        body: first,
        body_end: rest.is_none() && !stream,
        traceparent: options.traceparent.clone(),
        request_id: options.request_id.clone(),
        kind: Some(request.kind),
        ..proto::Open::default()
    };
    let progress = Arc::new(Progress::new(options.deadline));
    let give_up = Instant::now() + options.wait_for_agent;
    let mut search = Search { give_up, here: request.here, anew: false };
    // A stream's bytes are written by whoever holds it.
    let mut upload = rest.filter(|_| !stream);
    loop {
        let offered = progress.watch(offer(hub, agent, &mut open, search)).await?;
        let again = offered.is_elsewhere() && upload.is_none();
        match offered.answered(hub, upload.take(), &progress).await {
            // It has left there in this moment, and nothing was done.
            Err(CallError::NotConnected { .. }) if again && Instant::now() < give_up => search.anew = true,
            answered => return answered,
        }
    }
}

/// Takes what the body has ready, up to what rides in `Open`.
async fn prepare<B>(body: B, limits: &Limits) -> Result<Prepared<B>, CallError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Ok(Prepared { first: Bytes::new(), rest: None });
    }
    let mut gatherer = Gatherer::new(body, limits.open_body);
    // Only what is there already: nobody waits for a body here.
    let batch = poll_fn(|cx| Poll::Ready(gatherer.poll_batch(cx))).await;
    let (first, whole) = match batch {
        Poll::Pending => (Bytes::new(), false),
        Poll::Ready(Err(error)) => return Err(CallError::RequestBody(error)),
        // Trailers ride in no `Open`; gRPC callers have some.
        Poll::Ready(Ok(mut batch)) if batch.data.len() > limits.open_body || has_trailers(&batch.end) => {
            let first = batch.data.split_to(batch.data.len().min(limits.open_body));
            gatherer.resume(batch);
            (first, false)
        }
        Poll::Ready(Ok(batch)) => (batch.data, batch.end.is_some()),
    };
    Ok(Prepared { first, rest: (!whole).then_some(gatherer) })
}

fn has_trailers(end: &Option<Vec<proto::Header>>) -> bool {
    end.as_ref().is_some_and(|trailers| !trailers.is_empty())
}

/// A call's stream has begun.
struct Offered {
    source: Source,
    /// `None` when the agent has reset the stream already.
    send: Option<SendStream<Chunk>>,
    /// The sending direction was ended as it began.
    ended: bool,
    open: Arc<dyn OpenCall>,
    /// What bounds the bytes that wait unread.
    group: Arc<Group>,
    through: Through,
}

/// What a call hangs on.
enum Through {
    Session(Arc<Session>),
    Replica,
}

/// Offers the call to the agent's session until an answer begins. A session that
/// ended or drained before it took the call is no reason to fail: nothing was done.
async fn offer(
    hub: &Hub,
    agent: AgentKey,
    open: &mut proto::Open,
    mut search: Search,
) -> Result<Offered, CallError> {
    let limits = &hub.0.limits;
    let mut last = CallError::Lost;
    for _ in 0..OFFERS {
        let session = match hub.way_to(agent, search).await? {
            Way::Here(session) => session,
            Way::There(line) => match forward(&line, agent, open, limits).await? {
                Some(forwarded) => return Ok(Offered::elsewhere(hub, agent, forwarded, open.body_end)),
                None => {
                    hub.retire(&line);
                    search.anew = true;
                    last = CallError::NotConnected { since: None };
                    continue;
                }
            },
        };
        let id = CallId::random().map_err(|_| CallError::Invalid("there is no randomness"))?;
        open.call_id = id.to_bytes();
        open.epoch = session.epoch;
        let (tell, told) = oneshot::channel();
        let guard = CancelGuard { session: session.clone(), id };
        session.await_answer(id, Pending { tell, whole: open.body_end });
        let frame = framed(open);
        // The agent refuses a longer one, and with it the whole session.
        if frame.len() > limits.max_head + limits.open_body {
            return Err(CallError::Invalid("its head is too long"));
        }
        match session.queue.push_open(frame) {
            Ok(()) => {}
            Err(refused) => {
                // It was never sent, so there is nothing to cancel.
                session.claim(id);
                if refused == PushError::Full {
                    hub.0.counters.busy.fetch_add(1, Ordering::Relaxed);
                    return Err(CallError::Busy);
                }
                continue;
            }
        }
        let open_call = session.open_call();
        let told = told.await;
        drop(guard);
        match judge(told, &session) {
            Ok(answer) => return Ok(Offered::here(answer, open_call, session)),
            Err(error @ CallError::Rejected { reason: RejectReason::Draining, .. }) => {
                session.queue.close_with(None);
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Frames the message without a copy of its headers.
fn framed(open: &mut proto::Open) -> Bytes {
    let message = proto::ControlDown { kind: Some(Down::Open(std::mem::take(open))) };
    let frame = wire::message(&message);
    if let Some(Down::Open(inside)) = message.kind {
        *open = inside;
    }
    frame
}

fn judge(told: Result<Told, oneshot::error::RecvError>, session: &Session) -> Result<Answer, CallError> {
    match told {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err((RejectReason::Busy, _))) => Err(CallError::Busy),
        Ok(Err((reason, message))) => Err(CallError::Rejected { reason, message }),
        Err(_) => Err(session.lost()),
    }
}

impl Offered {
    fn here(answer: Answer, open: Arc<dyn OpenCall>, session: Arc<Session>) -> Self {
        let Answer { recv, send, ended } = answer;
        let group = session.group.clone();
        let (source, through) = (Source::Stream(recv), Through::Session(session));
        Self { source, send, ended, open, group, through }
    }

    fn elsewhere(hub: &Hub, agent: AgentKey, forwarded: Forwarded, ended: bool) -> Self {
        let Forwarded { response, send, line } = forwarded;
        let group = hub.0.lines.get().map(|lines| lines.group(agent)).unwrap_or_default();
        let open: Arc<dyn OpenCall> = Arc::new(line);
        let (source, through) = (Source::Response(response), Through::Replica);
        Self { source, send: Some(send), ended, open, group, through }
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.through, Through::Replica)
    }

    /// Starts the upload and reads the head.
    async fn answered<B>(
        self,
        hub: &Hub,
        rest: Option<Gatherer<B>>,
        progress: &Arc<Progress>,
    ) -> Result<Answered, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let limits = &hub.0.limits;
        let Self { source, send, ended, open, group, through } = self;
        let inbound = Inbound::new(source, Side::Controller, limits.max_head);
        let outbound = if ended {
            Outbound::already_ended(send, Side::Controller)
        } else {
            Outbound::new(send, Side::Controller, limits.max_frame)
        };
        let duplex = SharedDuplex::new(inbound, outbound);
        let mut holder = Holder::new(duplex.clone(), true, Some(open));
        if let Some(rest) = rest {
            holder.pump = Some(tokio::spawn(upload(duplex.clone(), rest, progress.clone())).abort_handle());
        }
        let head = async { Ok(poll_fn(|cx| duplex.lock().inbound.poll_head(cx)).await?) };
        let head = match progress.watch(head).await {
            // A cut session breaks its streams; the cause is known here.
            Err(CallError::Lost) => return Err(through.lost()),
            other => other?,
        };
        if let Through::Replica = through
            && let Some(trouble) = trouble_in(&head)
        {
            return Err(trouble);
        }
        if let Some(failure) = head.failure {
            return Err(CallError::Failure(failure.into()));
        }
        let status = u16::try_from(head.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let Some(status) = status.filter(|status| !status.is_informational() || status.as_u16() == 101)
        else {
            return Err(WireError::Malformed.into());
        };
        let headers = headers_from_wire(head.headers)?;
        // Only a long call can leave bytes unread, and what is long shows now.
        if !duplex.lock().inbound.is_finished() {
            holder.registration = Some(hub.0.ledger.register(&duplex, &group));
        }
        Ok(Answered { status, headers, holder })
    }
}

impl Through {
    /// What a call is told that lost what it hung on.
    fn lost(&self) -> CallError {
        match self {
            Self::Session(session) => session.lost(),
            Self::Replica => CallError::Lost,
        }
    }
}

/// Sends the request's body; when it fails, the call is given up.
async fn upload<B>(duplex: SharedDuplex, mut rest: Gatherer<B>, progress: Arc<Progress>)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if let Err(Broken::Body(error)) = rest.send_all(&duplex, || progress.moved()).await {
        tracing::debug!(%error, "request body failed");
        duplex.lock().end(BodyError::Aborted, Reason::CANCEL);
    }
}

impl Answered {
    /// The body, which is whole already when the answer was small.
    pub(super) async fn into_body(self, limits: &Limits) -> Body {
        let Self { holder, headers, .. } = self;
        let ready = poll_fn(|cx| Poll::Ready(holder.duplex.lock().poll_data(cx, limits.merge))).await;
        let first = match ready {
            Poll::Ready(Some(Ok(data))) => data,
            // An error shows again when the body is read.
            _ => Bytes::new(),
        };
        let mut duplex = holder.duplex.lock();
        if duplex.inbound.is_finished()
            && let Ok(trailers) = duplex.inbound.take_trailers().transpose()
        {
            drop(duplex);
            return Body::whole(first, trailers);
        }
        drop(duplex);
        let length =
            headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Body::stream(first, holder, limits.merge, length)
    }

    /// The bytes of an upgraded or TCP call.
    pub(super) fn into_upgraded(self, limits: &Limits) -> Upgraded {
        Upgraded::new(self.holder, limits)
    }
}

/// Watches that the head comes in time. An upload that moves puts the end off.
struct Progress {
    began: Instant,
    limit: Option<Duration>,
    moved_ms: AtomicU64,
}

impl Progress {
    fn new(limit: Option<Duration>) -> Self {
        Self { began: Instant::now(), limit, moved_ms: AtomicU64::new(0) }
    }

    fn moved(&self) {
        self.moved_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    async fn watch<T>(&self, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let Some(limit) = self.limit else { return work.await };
        tokio::select! {
            biased;
            done = work => done,
            () = self.run_out(limit) => Err(CallError::Deadline),
        }
    }

    async fn run_out(&self, limit: Duration) {
        loop {
            let end = self.began + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}
