//! The `Control` stream at the controller: `Hello`, admission, and then messages
//! both ways. Nothing here waits for a caller, a database or a dial: admission is
//! polled beside the rest, and what goes down comes from a bounded queue.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use futures::future::BoxFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use prost::Message as _;
use tokio::time::Instant;

use super::conduct::Conduct;
use super::session::{Begin, Session, down};
use super::{Admission, Admitted, AgentKey, Ended, Hub, Peer, SessionEvent};
use crate::meter::Meter;
use crate::stream::ok_trailers;
use crate::wire::{Chunk, Decoder, Event};
use crate::{Refusal, RefusalCode};

/// Largest message up; facts are the longest.
const MAX_UP: usize = 64 << 10;
/// Bytes of messages down that leave in one frame.
const MAX_DOWN: usize = 64 << 10;
/// Messages up that are looked at before others get their turn.
const BURST: usize = 64;

type Admitting = BoxFuture<'static, (proto::Hello, Result<Admitted, Refusal>)>;

enum Phase {
    Hello,
    Admitting(Admitting),
    Live(Live),
    /// Refused; the agent closes.
    Refused(Refusal),
}

/// Ends its session when it is dropped, whatever the way.
struct Live {
    hub: Hub,
    session: Arc<Session>,
    why: Option<Ended>,
    /// The agent has ended `Control`; what it sent on other streams may still come.
    left: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.hub.end(&self.session, &self.why.take().unwrap_or(Ended::Stopped));
    }
}

/// The `Control` stream of one connection.
pub(super) struct Control<A> {
    hub: Hub,
    admission: Arc<A>,
    agent: AgentKey,
    peer: Peer,
    meter: Arc<Meter>,
    up: RecvStream,
    decoder: Decoder,
    down: SendStream<Chunk>,
    began: Instant,
    phase: Phase,
    conduct: Conduct,
}

/// What can come out of the stream, other than a message.
enum Stop {
    Ended,
    Refuse(Refusal),
    /// Refuse, and do not wait until the agent closes.
    Expel(Refusal),
}

fn protocol(what: &str) -> Stop {
    Stop::Refuse(Refusal::new(RefusalCode::Protocol, what))
}

impl<A: Admission> Control<A> {
    /// Accepts the stream; without an identity it is refused at once.
    pub(super) fn accept(
        hub: &Hub,
        admission: &Arc<A>,
        peer: Peer,
        meter: &Arc<Meter>,
        up: RecvStream,
        respond: &mut SendResponse<Chunk>,
    ) -> Option<Self> {
        let Some(agent) = peer.agent else {
            let refusal =
                Refusal::new(RefusalCode::Unauthenticated, "the connection has no client certificate");
            let mut response = grpc_response();
            *response.headers_mut() = merge(response.headers(), refusal.trailers());
            // The agent may be gone already.
            let _ = respond.send_response(response, true);
            return None;
        };
        let down = respond.send_response(grpc_response(), false).ok()?;
        Some(Self {
            hub: hub.clone(),
            admission: admission.clone(),
            agent,
            peer,
            meter: meter.clone(),
            up,
            decoder: Decoder::new(None, MAX_UP),
            down,
            began: Instant::now(),
            phase: Phase::Hello,
            conduct: Conduct::new(&hub.0.limits),
        })
    }

    /// The session, once there is one.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Live(live) => Some(&live.session),
            _ => None,
        }
    }

    /// Until when something must have happened here.
    pub(super) fn due(&self) -> Instant {
        let limits = &self.hub.0.limits;
        match &self.phase {
            Phase::Hello | Phase::Admitting(_) => self.began + limits.handshake * 2,
            Phase::Live(live) => live.session.last_beat() + limits.silence(),
            Phase::Refused(_) => self.began + limits.handshake * 3,
        }
    }

    /// Why the connection ends when [`Control::due`] has passed.
    pub(super) fn overdue(&self) -> Ended {
        match &self.phase {
            Phase::Refused(refusal) => Ended::Refused(refusal.clone()),
            _ => Ended::Silent,
        }
    }

    /// Notes why the connection ended, for whoever hears of the session's end.
    pub(super) fn ended(&mut self, why: &Ended) {
        if let Phase::Live(live) = &mut self.phase {
            live.why.get_or_insert(why.clone());
        }
    }

    /// Why the agent closing the connection is not news.
    pub(super) fn refused(&self) -> Option<Ended> {
        match &self.phase {
            Phase::Refused(refusal) => Some(Ended::Refused(refusal.clone())),
            _ => None,
        }
    }

    /// Does what can be done now; ready when the session must end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Phase::Live(live) = &self.phase
            && live.left
        {
            return live.poll_left(cx);
        }
        for _ in 0..BURST {
            let stop = match self.step(cx) {
                Poll::Pending => return self.poll_down(cx),
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(stop)) => stop,
            };
            match stop {
                Stop::Ended => return self.left(cx),
                Stop::Refuse(refusal) => self.refuse(refusal),
                Stop::Expel(refusal) => return Poll::Ready(self.expel(refusal)),
            }
        }
        cx.waker().wake_by_ref();
        self.poll_down(cx)
    }

    /// The agent has ended the stream. Streams overtake each other, so what it
    /// answered before is waited for: until the connection ends, or no call is open.
    fn left(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Phase::Live(live) = &mut self.phase else {
            return Poll::Ready(self.refused().unwrap_or(Ended::Closed));
        };
        live.left = true;
        live.session.queue.close_with(None);
        live.poll_left(cx)
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if let Phase::Admitting(admitting) = &mut self.phase {
            let (hello, verdict) = std::task::ready!(admitting.as_mut().poll(cx));
            return Poll::Ready(
                verdict.and_then(|admitted| self.begin(hello, admitted)).map_err(Stop::Refuse),
            );
        }
        let message = std::task::ready!(self.poll_message(cx));
        Poll::Ready(message.and_then(|message| self.hear(message.kind)))
    }

    fn hear(&mut self, kind: Option<Up>) -> Result<(), Stop> {
        self.weigh(kind.as_ref()).map_err(Stop::Expel)?;
        match (&self.phase, kind) {
            (Phase::Hello, Some(Up::Hello(hello))) => self.admit(hello),
            (Phase::Hello, _) => Err(protocol("the first message is not Hello")),
            (Phase::Live(live), Some(kind)) => live.hear(kind),
            // Something a newer agent says, or one that was refused.
            _ => Ok(()),
        }
    }

    /// Whether a sound agent could have said this now.
    fn weigh(&mut self, kind: Option<&Up>) -> Result<(), Refusal> {
        let now = Instant::now();
        match kind {
            Some(Up::Reject(_)) => return self.weigh_answer(),
            Some(Up::Facts(_)) => self.conduct.facts(now)?,
            _ => {}
        }
        self.conduct.message(now)
    }

    /// Whether there can be an answer, or a reject, to some call.
    pub(super) fn weigh_answer(&mut self) -> Result<(), Refusal> {
        let offered = self.session().map_or(0, |session| session.calls());
        self.conduct.answer(offered)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<proto::ControlUp, Stop>> {
        loop {
            match self.decoder.next() {
                Ok(Some(Event::Message(bytes) | Event::Data(bytes))) => {
                    let message = proto::ControlUp::decode(bytes);
                    return Poll::Ready(message.map_err(|_| protocol("a message cannot be read")));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(protocol(&error.to_string()))),
            }
            match std::task::ready!(self.up.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // The credit of a stream that is gone does not matter.
                    let _ = self.up.flow_control().release_capacity(bytes.len());
                    self.decoder.push(bytes);
                }
                Some(Err(_)) | None => return Poll::Ready(Err(Stop::Ended)),
            }
        }
    }

    fn admit(&mut self, hello: proto::Hello) -> Result<(), Stop> {
        if hello.instance.len() != 16 {
            return Err(protocol("the instance is not 16 bytes"));
        }
        let (admission, agent, source) = (self.admission.clone(), self.agent, self.peer.source);
        let limit = self.hub.0.limits.handshake;
        self.phase = Phase::Admitting(Box::pin(async move {
            let verdict = tokio::time::timeout(limit, admission.admit(agent, &hello, source)).await;
            let late = || {
                Refusal::new(RefusalCode::Overloaded, "the controller was too slow")
                    .after(Duration::from_secs(5))
            };
            (hello, verdict.unwrap_or_else(|_| Err(late())))
        }));
        Ok(())
    }

    fn begin(&mut self, hello: proto::Hello, admitted: Admitted) -> Result<(), Refusal> {
        let standby = hello.standby;
        let begin = Begin {
            agent: self.agent,
            instance: hello.instance.as_ref().try_into().unwrap_or_default(),
            hello,
            source: self.peer.source,
            meter: self.meter.clone(),
            now: SystemTime::now(),
        };
        let session = self.hub.begin(begin, standby, admitted.epoch_floor)?;
        self.phase = Phase::Live(Live { hub: self.hub.clone(), session, why: None, left: false });
        Ok(())
    }

    /// Refuses, and ends the connection as soon as the agent could have read why.
    pub(super) fn expel(&mut self, refusal: Refusal) -> Ended {
        self.refuse(refusal.clone());
        Ended::Refused(refusal)
    }

    fn refuse(&mut self, refusal: Refusal) {
        let (agent, source) = (self.agent, self.peer.source);
        tracing::info!(%agent, %source, code = %refusal.code, why = refusal.message, "agent refused");
        self.hub.emit(SessionEvent::Refused { agent, source, refusal: refusal.clone() });
        self.ended(&Ended::Refused(refusal.clone()));
        // Fails only when the stream is gone, and with it who would read it.
        let _ = self.down.send_trailers(refusal.trailers());
        self.phase = Phase::Refused(refusal);
    }

    /// Sends what waits, as credit allows; ready when the session is to end and
    /// nothing waits.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Phase::Live(live) = &self.phase else { return Poll::Pending };
        let queue = &live.session.queue;
        while let Poll::Ready(waiting) = queue.poll_waiting(cx) {
            let need = queue.first_len();
            self.down.reserve_capacity(waiting.min(MAX_DOWN).max(need));
            if self.down.capacity() < need {
                match self.down.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(_) => return Poll::Ready(Ended::Closed),
                    Poll::Pending => break,
                }
            }
            let room = self.down.capacity().min(MAX_DOWN.max(need));
            if let Some(bytes) = queue.take(room)
                && self.down.send_data(Chunk::raw(bytes), false).is_err()
            {
                return Poll::Ready(Ended::Closed);
            }
        }
        match queue.why_ended() {
            Some(why) => {
                self.down_last(&why);
                Poll::Ready(why)
            }
            None => Poll::Pending,
        }
    }

    fn down_last(&mut self, why: &Ended) {
        let trailers = match why {
            Ended::Cut(refusal) => refusal.trailers(),
            _ => ok_trailers(),
        };
        let _ = self.down.send_trailers(trailers);
    }
}

impl Live {
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let queue = &self.session.queue;
        // Who calls and cancels wakes us; nobody reads what they have to say.
        if queue.poll_waiting(cx).is_ready() {
            queue.discard();
        }
        match queue.why_ended() {
            Some(why) => Poll::Ready(why),
            None if self.session.open_calls() == 0 => Poll::Ready(Ended::Closed),
            None => Poll::Pending,
        }
    }

    fn hear(&self, kind: Up) -> Result<(), Stop> {
        let session = &self.session;
        match kind {
            Up::Heartbeat(beat) => {
                session.beat();
                session.queue.push_if_room(down(Down::Heartbeat(beat)));
            }
            Up::Reject(reject) => session.reject(&reject),
            Up::Facts(facts) => {
                session.note_facts(facts);
                self.hub.emit(SessionEvent::Facts(Box::new(session.info())));
            }
            Up::Draining(_) => session.queue.close_with(None),
            Up::Hello(_) => return Err(protocol("a second Hello")),
        }
        Ok(())
    }
}

/// The head of a gRPC answer.
pub(crate) fn grpc_response() -> http::Response<()> {
    let mut response = http::Response::new(());
    let grpc = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}

/// A whole gRPC answer without a message, in one head.
pub(super) fn merge(head: &HeaderMap, trailers: HeaderMap) -> HeaderMap {
    let mut all = head.clone();
    all.extend(trailers);
    all
}
