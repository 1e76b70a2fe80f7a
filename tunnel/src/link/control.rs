//! `Control` at the agent: says Hello, keeps the heartbeat, starts and cancels
//! calls. It runs in the connection's task, so nothing here may wait: a call is a
//! task of its own, a signal that its owner does not take is kept for later.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use futures::future::BoxFuture;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Uri};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::answer::{Session, answer, parse};
use super::calls::Calls;
use super::{Handler, Link, LinkEnd, Signal, Welcome};
use crate::wire::{CallId, Chunk, Decoder, Event, put_message};
use crate::{Refusal, RejectReason};

/// Largest message down: `Open` with its body and the longest head.
const MAX_DOWN: usize = 1 << 20;
/// Messages looked at before the connection gets its turn.
const BURST: usize = 64;
/// Bytes up that may wait for credit; a controller that takes nothing is broken.
const MAX_UP: usize = 1 << 20;
/// Bounds of the heartbeat period that a controller may ask for.
const BEAT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(300));

type FactsChanged = BoxFuture<'static, Option<watch::Receiver<Option<proto::Facts>>>>;

/// Why the session goes towards its end while calls still run.
enum Leaving {
    Stopped,
    Drained,
    Superseded { from: String },
}

/// The stream down.
enum Incoming {
    Opening(ResponseFuture),
    Open(RecvStream),
}

pub(super) struct Control<H> {
    session: Arc<Session>,
    handler: H,
    up: SendStream<Chunk>,
    /// Framed messages up that wait to be sent together.
    waiting: BytesMut,
    incoming: Incoming,
    decoder: Decoder,
    calls: Calls,
    epoch: Option<u64>,
    max_calls: usize,
    period: Duration,
    began: Instant,
    last_echo: Instant,
    next_beat: Instant,
    sequence: u64,
    leaving: Option<(Leaving, Option<Instant>)>,
    timer: Pin<Box<Sleep>>,
    facts: Option<FactsChanged>,
    latest_facts: Option<proto::Facts>,
    signals: mpsc::Sender<Signal>,
    unsignalled: VecDeque<Signal>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

fn lost(why: &str) -> LinkEnd {
    LinkEnd::Lost(why.to_owned())
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
            max_calls: limits.max_calls as usize,
            period: limits.heartbeat,
            session: Arc::new(Session {
                send: link.send.clone(),
                limits,
                ledger: link.ledger.clone(),
                group: Arc::default(),
            }),
            handler,
            up,
            waiting: BytesMut::new(),
            incoming: Incoming::Opening(response),
            decoder: Decoder::new(None, MAX_DOWN),
            calls: Calls::default(),
            epoch: None,
            began: now,
            last_echo: now,
            next_beat: now,
            sequence: 0,
            leaving: None,
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
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        for _ in 0..BURST {
            match self.poll_message(cx) {
                Poll::Ready(Ok(message)) => {
                    if let Some(Err(end)) = message.kind.map(|kind| self.hear(kind)) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Err(end)) => return Poll::Ready(self.instead(end)),
                Poll::Pending => return self.poll_rest(cx),
            }
        }
        cx.waker().wake_by_ref();
        self.poll_rest(cx)
    }

    /// Everything but messages down.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        if self.leaving.is_none() && self.stop.as_mut().poll(cx).is_ready() {
            self.say(Up::Draining(proto::Draining {}));
            self.leave(Leaving::Stopped, Some(self.session.limits.drain));
        }
        self.poll_facts(cx);
        self.signal_all();
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.tick(Instant::now()) {
                Ok(next) => self.timer.as_mut().reset(next),
                Err(end) => return Poll::Ready(end),
            }
        }
        if let Err(end) = self.flush(cx) {
            return Poll::Ready(end);
        }
        if self.leaving.is_some() && self.waiting.is_empty() && self.calls.poll_none(cx).is_ready() {
            return Poll::Ready(self.left());
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

    fn hear(&mut self, kind: Down) -> Result<(), LinkEnd> {
        match (kind, self.epoch) {
            (Down::Welcome(welcome), None) => self.welcome(welcome),
            (Down::Welcome(_), Some(_)) => return Err(lost("the controller said Welcome twice")),
            (_, None) => return Err(lost("the controller did not say Welcome first")),
            (Down::Open(open), Some(epoch)) => self.open_call(open, epoch),
            (Down::Cancel(cancel), _) => {
                if let Some(id) = CallId::from_bytes(&cancel.call_id) {
                    self.calls.cancel(id);
                }
            }
            (Down::Heartbeat(beat), _) => self.echo(&beat),
            (Down::Renew(_), _) => self.signal(Signal::Renew),
            (Down::Drain(drain), _) => {
                let deadline = Duration::from_millis(drain.deadline_ms.into());
                let spread = Duration::from_millis(drain.spread_ms.into());
                self.signal(Signal::Drain { spread, deadline });
                self.leave(Leaving::Drained, Some(deadline));
            }
            (Down::Superseded(by), _) if by.same_instance => {
                self.leave(Leaving::Superseded { from: by.source }, None);
            }
            (Down::Superseded(by), _) => {
                return Err(LinkEnd::Superseded { same_instance: false, from: by.source });
            }
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: proto::Welcome) {
        self.epoch = Some(welcome.epoch);
        if welcome.heartbeat_ms > 0 {
            self.period = Duration::from_millis(welcome.heartbeat_ms.into()).clamp(BEAT.0, BEAT.1);
        }
        if welcome.max_calls > 0 {
            self.max_calls = self.max_calls.min(welcome.max_calls as usize);
        }
        let now = Instant::now();
        self.last_echo = now;
        self.next_beat = now;
        self.timer.as_mut().reset(now);
        self.signal(Signal::Welcome(Welcome {
            epoch: welcome.epoch,
            replica: welcome.replica,
            clock_skew_ms: welcome.clock_ms.saturating_sub(unix_ms()),
        }));
        if let Some(facts) = self.latest_facts.take() {
            self.say(Up::Facts(facts));
        }
    }

    /// Starts a task, or says at once why not. Nothing is queued.
    fn open_call(&mut self, mut open: proto::Open, epoch: u64) {
        let call_id = std::mem::take(&mut open.call_id);
        let verdict = match CallId::from_bytes(&call_id) {
            None => Err((RejectReason::Malformed, "the call id is not 16 bytes")),
            Some(_) if open.epoch != epoch => Err((RejectReason::Stale, "the epoch is another session's")),
            Some(_) if self.leaving.is_some() => {
                Err((RejectReason::Draining, "the agent takes no new calls"))
            }
            Some(_) if self.calls.len() >= self.max_calls => {
                Err((RejectReason::Busy, "too many calls are open"))
            }
            Some(id) => match parse(id, open) {
                Err(_) => Err((RejectReason::Malformed, "the request cannot be understood")),
                Ok(parsed) => {
                    let (session, handler) = (self.session.clone(), self.handler.clone());
                    let started = self.calls.start(id, |running| async move {
                        answer(session, parsed, handler).await;
                        drop(running);
                    });
                    if started { Ok(()) } else { Err((RejectReason::Malformed, "the call id is in use")) }
                }
            },
        };
        if let Err((reason, message)) = verdict {
            self.say(Up::Reject(proto::Reject {
                call_id,
                reason: reason.into(),
                message: message.to_owned(),
            }));
        }
    }

    fn echo(&mut self, beat: &proto::Heartbeat) {
        let now = Instant::now();
        self.last_echo = now;
        let sent = self.began + Duration::from_micros(beat.sent_us);
        if sent <= now {
            let rtt = now - sent;
            // Nobody need know of each one.
            let _ = self.signals.try_send(Signal::Beat { rtt });
        }
    }

    /// Sends what is due, and says when something next is.
    fn tick(&mut self, now: Instant) -> Result<Instant, LinkEnd> {
        if let Some((_, Some(end))) = &self.leaving
            && *end <= now
        {
            return Err(self.left());
        }
        let limits = &self.session.limits;
        if self.epoch.is_none() {
            let end = self.began + limits.handshake * 2;
            return if end <= now {
                Err(lost("the controller did not say Welcome in time"))
            } else {
                Ok(end)
            };
        }
        let silent = self.last_echo + self.period * 5 / 2;
        if silent <= now {
            return Err(lost("the controller answers no heartbeat"));
        }
        if self.next_beat <= now {
            self.sequence += 1;
            let sent_us = now.saturating_duration_since(self.began).as_micros() as u64;
            self.say(Up::Heartbeat(proto::Heartbeat { sequence: self.sequence, sent_us }));
            self.next_beat = now + self.period;
        }
        let end = self.leaving.as_ref().and_then(|(_, end)| *end);
        Ok(end.into_iter().fold(self.next_beat.min(silent), Instant::min))
    }

    /// Goes towards the end; the first cause stays, the earliest deadline counts.
    fn leave(&mut self, why: Leaving, within: Option<Duration>) {
        let now = Instant::now();
        let end = within.map(|within| now + within);
        self.leaving = Some(match self.leaving.take() {
            Some((first, before)) => (first, before.into_iter().chain(end).min()),
            None => (why, end),
        });
        self.timer.as_mut().reset(now);
    }

    fn left(&mut self) -> LinkEnd {
        match self.leaving.take() {
            Some((Leaving::Drained, _)) => LinkEnd::Drained,
            Some((Leaving::Superseded { from }, _)) => LinkEnd::Superseded { same_instance: true, from },
            Some((Leaving::Stopped, _)) | None => LinkEnd::Stopped,
        }
    }

    /// A loss while leaving is the end that was being left for.
    fn instead(&mut self, end: LinkEnd) -> LinkEnd {
        match end {
            LinkEnd::Lost(_) if self.leaving.is_some() => self.left(),
            end => end,
        }
    }

    fn poll_facts(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(next)) = self.facts.as_mut().map(|facts| facts.as_mut().poll(cx)) {
            let Some(mut receiver) = next else { return self.facts = None };
            let facts = receiver.borrow_and_update().clone();
            self.facts = Some(changed(receiver));
            match (facts, self.epoch) {
                (Some(facts), Some(_)) => self.say(Up::Facts(facts)),
                (facts, _) => self.latest_facts = facts,
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.unsignalled.push_back(signal);
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
