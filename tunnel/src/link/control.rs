//! `Control` at the agent: says Hello, keeps the heartbeat, starts and cancels
//! calls. It runs in the connection's task, so nothing here may wait: a call is a
//! task of its own, a signal that its owner does not take is kept for later.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use futures::future::BoxFuture;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Uri};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::answer::{Session, answer, parse};
use super::calls::Calls;
use super::state::{Act, State, lost, reject};
use super::{Handler, LINGER, Link, LinkEnd, Signal};
use crate::meter::Meter;
use crate::wire::{CallId, Chunk, Decoder, Event, put_message};
use crate::{Refusal, RejectReason};

/// Largest message down: `Open` with its body and the longest head.
const MAX_DOWN: usize = 1 << 20;
/// Messages looked at before the connection gets its turn.
const BURST: usize = 64;
/// Bytes up that may wait for credit; a controller that takes nothing is broken.
const MAX_UP: usize = 1 << 20;
type FactsChanged = BoxFuture<'static, Option<watch::Receiver<Option<proto::Facts>>>>;

/// The stream down.
enum Incoming {
    Opening(ResponseFuture),
    Open(RecvStream),
}

pub(super) struct Control<H> {
    session: Arc<Session>,
    handler: H,
    meter: Arc<Meter>,
    up: SendStream<Chunk>,
    /// Framed messages up that wait to be sent together.
    waiting: BytesMut,
    incoming: Incoming,
    decoder: Decoder,
    calls: Calls,
    state: State,
    timer: Pin<Box<Sleep>>,
    facts: Option<FactsChanged>,
    latest_facts: Option<proto::Facts>,
    signals: mpsc::Sender<Signal>,
    unsignalled: VecDeque<Signal>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Waits for facts, and gives the receiver back with them marked as seen.
fn changed(mut facts: watch::Receiver<Option<proto::Facts>>) -> FactsChanged {
    Box::pin(async move { facts.changed().await.ok().map(|()| facts) })
}

fn request() -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = Uri::from_static("https://culvert/culvert.tunnel.v1.Tunnel/Control");
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    request
}

impl<H: Handler> Control<H> {
    /// Opens the stream and says Hello.
    pub(super) async fn open(
        link: &Link,
        hello: proto::Hello,
        handler: H,
        mut facts: watch::Receiver<Option<proto::Facts>>,
        signals: mpsc::Sender<Signal>,
        stop: CancellationToken,
    ) -> Result<Self, LinkEnd> {
        let broken = |error: h2::Error| LinkEnd::Lost(error.to_string());
        let mut send = link.send.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(broken)?;
        let (response, up) = send.send_request(request(), false).map_err(broken)?;
        let limits = link.limits.clone();
        let now = Instant::now();
        let latest_facts = facts.borrow_and_update().clone();
        let mut control = Self {
            state: State::new(&limits, now),
            session: Arc::new(Session {
                send: link.send.clone(),
                limits,
                ledger: link.ledger.clone(),
                group: Arc::default(),
            }),
            handler,
            meter: link.meter.clone(),
            up,
            waiting: BytesMut::new(),
            incoming: Incoming::Opening(response),
            decoder: Decoder::new(None, MAX_DOWN),
            calls: Calls::default(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            facts: Some(changed(facts)),
            latest_facts,
            signals,
            unsignalled: VecDeque::new(),
            stop: Box::pin(stop.cancelled_owned()),
        };
        control.say(Up::Hello(hello));
        Ok(control)
    }

    /// Runs the session to its end.
    pub(super) async fn run(mut self) -> LinkEnd {
        let end = poll_fn(|cx| self.poll(cx)).await;
        if !matches!(end, LinkEnd::Lost(_) | LinkEnd::Refused(_)) {
            self.part().await;
        }
        end
    }

    /// Ends `Control` and waits until the controller has ended it too. A stream that is
    /// dropped before is reset, and h2 throws away what still waits to be sent: the last
    /// rejects, after which their callers try another session.
    async fn part(&mut self) {
        self.calls = Calls::default();
        if self.up.send_data(Chunk::raw(Bytes::new()), true).is_err() {
            return;
        }
        let ended = poll_fn(|cx| {
            while std::task::ready!(self.poll_message(cx)).is_ok() {}
            Poll::Ready(())
        });
        // A controller that does not answer has lost nothing that it wanted.
        let _ = timeout(LINGER, ended).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        for _ in 0..BURST {
            match self.poll_message(cx) {
                Poll::Ready(Ok(message)) => {
                    if let Some(Err(end)) = message.kind.map(|kind| self.hear(kind)) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Err(end)) => return Poll::Ready(self.state.instead(end)),
                Poll::Pending => return self.poll_rest(cx),
            }
        }
        cx.waker().wake_by_ref();
        self.poll_rest(cx)
    }

    /// Everything but messages down.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        if !self.state.is_leaving() && self.stop.as_mut().poll(cx).is_ready() {
            self.say(Up::Draining(proto::Draining {}));
            self.state.stop(self.session.limits.drain, Instant::now());
            self.timer.as_mut().reset(Instant::now());
        }
        self.meter.note_calls(self.calls.len());
        self.poll_facts(cx);
        self.signal_all();
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.state.tick(Instant::now()) {
                Ok(due) => {
                    self.timer.as_mut().reset(due.next);
                    due.beat.into_iter().for_each(|beat| self.say(Up::Heartbeat(beat)));
                }
                Err(end) => return Poll::Ready(end),
            }
        }
        if let Err(end) = self.flush(cx) {
            return Poll::Ready(end);
        }
        if self.state.may_end() && self.waiting.is_empty() && self.calls.poll_none(cx).is_ready() {
            return Poll::Ready(self.state.left());
        }
        Poll::Pending
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<proto::ControlDown, LinkEnd>> {
        loop {
            match self.decoder.next() {
                Ok(Some(Event::Message(bytes) | Event::Data(bytes))) => {
                    let message = proto::ControlDown::decode(bytes);
                    return Poll::Ready(message.map_err(|_| lost("the controller sent what cannot be read")));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(LinkEnd::Lost(format!("the controller sent {error}")))),
            }
            match &mut self.incoming {
                Incoming::Opening(response) => match std::task::ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => match refused(response.status(), response.headers()) {
                        Some(end) => return Poll::Ready(Err(end)),
                        None => self.incoming = Incoming::Open(response.into_body()),
                    },
                    Err(error) => return Poll::Ready(Err(LinkEnd::Lost(error.to_string()))),
                },
                Incoming::Open(stream) => match std::task::ready!(stream.poll_data(cx)) {
                    Some(Ok(bytes)) => {
                        // The credit of a stream that is gone does not matter.
                        let _ = stream.flow_control().release_capacity(bytes.len());
                        self.decoder.push(bytes);
                    }
                    Some(Err(error)) => return Poll::Ready(Err(LinkEnd::Lost(error.to_string()))),
                    None => {
                        let trailers =
                            std::task::ready!(stream.poll_trailers(cx)).ok().flatten().unwrap_or_default();
                        let refusal = Refusal::from_trailers(&trailers).map(LinkEnd::Refused);
                        return Poll::Ready(Err(
                            refusal.unwrap_or_else(|| lost("the controller ended the session"))
                        ));
                    }
                },
            }
        }
    }

    /// Does what the message asks for.
    fn hear(&mut self, kind: Down) -> Result<(), LinkEnd> {
        let turns = matches!(kind, Down::Welcome(_) | Down::Drain(_) | Down::Superseded(_));
        match self.state.hear(kind, self.calls.len(), Instant::now(), unix_ms())? {
            Act::None => {}
            Act::Start(id, open) => self.start(id, *open),
            Act::Reject(reject) => self.say(Up::Reject(reject)),
            Act::Cancel(id) => self.calls.cancel(id),
            Act::Signal(signal) => self.signal(signal),
            // Nobody need know of each one.
            Act::Beat(rtt) => {
                let _ = self.signals.try_send(Signal::Beat { rtt });
            }
        }
        if turns {
            // Other things are due now.
            self.timer.as_mut().reset(Instant::now());
            let facts = self.latest_facts.take();
            facts.into_iter().for_each(|facts| self.say(Up::Facts(facts)));
        }
        Ok(())
    }

    /// Starts a task for a call that can be understood.
    fn start(&mut self, id: CallId, open: proto::Open) {
        let why = match parse(id, open) {
            Err(_) => "the request cannot be understood",
            Ok(parsed) => {
                let (session, handler) = (self.session.clone(), self.handler.clone());
                let started = self.calls.start(id, |running| async move {
                    answer(session, parsed, handler).await;
                    drop(running);
                });
                if started {
                    return;
                }
                "the call id is in use"
            }
        };
        self.say(Up::Reject(reject(id.to_bytes(), RejectReason::Malformed, why)));
    }

    fn poll_facts(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(next)) = self.facts.as_mut().map(|facts| facts.as_mut().poll(cx)) {
            let Some(mut receiver) = next else { return self.facts = None };
            let facts = receiver.borrow_and_update().clone();
            self.facts = Some(changed(receiver));
            match facts {
                Some(facts) if self.state.is_welcome() => self.say(Up::Facts(facts)),
                facts => self.latest_facts = facts,
            }
        }
    }

    /// What repeats itself is kept once, so that a controller cannot fill memory.
    fn signal(&mut self, signal: Signal) {
        if self.unsignalled.back() != Some(&signal) {
            self.unsignalled.push_back(signal);
        }
        self.signal_all();
    }

    fn signal_all(&mut self) {
        while let Some(signal) = self.unsignalled.pop_front() {
            match self.signals.try_send(signal) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(signal)) => return self.unsignalled.push_front(signal),
                // Nobody listens, and nobody will.
                Err(mpsc::error::TrySendError::Closed(_)) => return self.unsignalled.clear(),
            }
        }
    }

    fn say(&mut self, kind: Up) {
        put_message(&mut self.waiting, &proto::ControlUp { kind: Some(kind) });
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        while !self.waiting.is_empty() {
            self.up.reserve_capacity(self.waiting.len());
            let room = self.up.capacity().min(self.waiting.len());
            if room > 0 {
                let bytes = self.waiting.split_to(room).freeze();
                self.up
                    .send_data(Chunk::raw(bytes), false)
                    .map_err(|error| LinkEnd::Lost(error.to_string()))?;
                continue;
            }
            match self.up.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                // The stream down tells why it ended.
                Poll::Ready(_) => {
                    self.waiting.clear();
                    return Ok(());
                }
                Poll::Pending if self.waiting.len() > MAX_UP => {
                    return Err(lost("the controller takes no message"));
                }
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }
}

/// A stream that was refused before it began.
fn refused(status: http::StatusCode, headers: &http::HeaderMap) -> Option<LinkEnd> {
    if status != http::StatusCode::OK {
        return Some(LinkEnd::Lost(format!("the controller answered with status {status}")));
    }
    Refusal::from_trailers(headers).map(LinkEnd::Refused)
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
