//! The one task of a connection: it drives HTTP/2, `Control` and the clock, and
//! hands each answer to the caller that waits for it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind as Down;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::control::{Control, grpc_response, merge};
use super::fallback::serve_one;
use super::session::{Answer, down};
use super::{Admission, Ended, Hub, Peer};
use crate::keepalive::KeepAlive;
use crate::meter::{Meter, Metered};
use crate::stream::ok_trailers;
use crate::turn::Turn;
use crate::wire::{CallId, Chunk};
use crate::{BoxError, Limits, Refusal, RefusalCode};

/// What is queued when a connection ends gets this long to leave.
const LINGER: Duration = Duration::from_secs(1);
/// Requests accepted before others get their turn.
const BURST: usize = 128;
/// Longest life that a certificate is believed to have.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    let streams = limits.max_streams();
    builder
        .initial_connection_window_size(limits.connection_window)
        .initial_window_size(limits.stream_window)
        .max_frame_size(limits.max_frame)
        .max_header_list_size(limits.max_header_list())
        .max_concurrent_streams(streams)
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(limits.frame_overhead)
        // Calls that end by a reset are everyday business here, see the room's essay.
        .max_concurrent_reset_streams(streams as usize)
        .max_pending_accept_reset_streams(streams as usize)
        .max_local_error_reset_streams(Some(limits.max_stream_errors));
    builder
}

struct Serving<IO, A, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    hub: Hub,
    peer: Peer,
    admission: Arc<A>,
    fallback: S,
    conn: Connection<Metered<IO>, Chunk>,
    meter: Arc<Meter>,
    keepalive: KeepAlive,
    control: Option<Control<A>>,
    tasks: JoinSet<()>,
    active: Instant,
    expires: Option<Instant>,
    drained_by: Option<Instant>,
    /// Nothing is left to do after a drain.
    empty: bool,
    timer: Pin<Box<Sleep>>,
    turn: Turn,
}

/// See [`Hub::serve`].
pub(super) async fn serve<IO, A, S, B>(
    hub: Hub,
    io: IO,
    peer: Peer,
    admission: A,
    fallback: S,
    stop: CancellationToken,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Admission,
    S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>>,
    S: Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limits = hub.0.limits.clone();
    let meter = Meter::new();
    let handshake = builder(&limits).handshake(Metered::new(io, meter.clone()));
    let mut conn = match timeout(limits.handshake, handshake).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(error)) => return Ended::Broken(error.to_string()),
        Err(_) => return Ended::Silent,
    };
    // Half as patient again as the agent, so that on an idle connection only one end asks.
    let keepalive = KeepAlive::new(conn.ping_pong(), limits.ping_idle * 3 / 2, limits.ping_timeout);
    let now = Instant::now();
    let life = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default().min(YEAR);
    let mut serving = Serving {
        hub,
        peer,
        admission: Arc::new(admission),
        fallback,
        conn,
        meter,
        keepalive,
        control: None,
        tasks: JoinSet::new(),
        active: now,
        expires: peer.not_after.map(|end| now + life(end)),
        drained_by: None,
        empty: false,
        timer: Box::pin(tokio::time::sleep_until(now)),
        turn: Turn::default(),
    };
    let mut stopped = pin!(stop.cancelled_owned());
    let ended = poll_fn(|cx| serving.poll(cx, stopped.as_mut())).await;
    serving.close(ended).await
}

impl<IO, A, S, B> Serving<IO, A, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Admission,
    S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>>,
    S: Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>, stopped: Pin<&mut impl Future<Output = ()>>) -> Poll<Ended> {
        if self.turn.wait(self.open_calls(), cx) {
            return Poll::Pending;
        }
        if self.drained_by.is_none() && stopped.poll(cx).is_ready() {
            self.drain();
        }
        for _ in 0..BURST {
            // What goes down first, so that driving the connection sends it.
            if let Some(control) = &mut self.control
                && let Poll::Ready(ended) = control.poll(cx)
            {
                return Poll::Ready(ended);
            }
            if self.is_drained() {
                self.drained();
            }
            match self.conn.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Err(ended) = self.accept(request, respond) {
                        return Poll::Ready(ended);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.broken(&error)),
                Poll::Ready(None) => return Poll::Ready(self.closed()),
                Poll::Pending => {
                    while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {
                        self.active = Instant::now();
                    }
                    return self.poll_clock(cx);
                }
            }
        }
        cx.waker().wake_by_ref();
        self.poll_clock(cx)
    }

    fn closed(&self) -> Ended {
        self.control.as_ref().and_then(Control::refused).unwrap_or(Ended::Closed)
    }

    fn broken(&self, error: &h2::Error) -> Ended {
        match error.get_io() {
            // A socket that just ends is how most agents go.
            Some(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => self.closed(),
            _ => Ended::Broken(error.to_string()),
        }
    }

    /// Takes one request; an error when no sound agent could have sent it.
    fn accept(
        &mut self,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
    ) -> Result<(), Ended> {
        self.active = Instant::now();
        match request.uri().path() {
            "/culvert.tunnel.v1.Tunnel/Answer" => return self.answer(request, respond),
            "/culvert.tunnel.v1.Tunnel/Control" if self.control.is_none() => {
                let up = request.into_body();
                self.control =
                    Control::accept(&self.hub, &self.admission, self.peer, &self.meter, up, &mut respond);
                self.rearm();
            }
            "/culvert.tunnel.v1.Tunnel/Control" => respond.send_reset(Reason::PROTOCOL_ERROR),
            _ if self.tasks.len() >= self.hub.0.limits.spare_streams as usize => {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            _ => {
                self.tasks.spawn(serve_one(self.fallback.clone(), request, respond, self.peer));
            }
        }
        Ok(())
    }

    /// An answer belongs to a call of the session of this very connection, so the
    /// identity and the epoch are right by construction.
    fn answer(
        &mut self,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
    ) -> Result<(), Ended> {
        let Some(control) = &mut self.control else {
            return Err(Ended::Refused(Refusal::new(RefusalCode::Protocol, "an answer came before Control")));
        };
        control.weigh_answer().map_err(|refusal| control.expel(refusal))?;
        let id = request.headers().get("culvert-call").and_then(|id| CallId::from_hex(id.as_bytes()));
        let session = self.control.as_ref().and_then(Control::session);
        let Some(pending) = id.zip(session).and_then(|(id, session)| session.claim(id)) else {
            self.hub.0.counters.unknown_answers.fetch_add(1, Ordering::Relaxed);
            respond.send_reset(Reason::CANCEL);
            return Ok(());
        };
        let mut head = grpc_response();
        if pending.whole {
            *head.headers_mut() = merge(head.headers(), ok_trailers());
        }
        let send = respond.send_response(head, pending.whole).ok();
        let answer = Answer { recv: request.into_body(), send, ended: pending.whole };
        // A caller that has just gone drops the streams, which resets them.
        let _ = pending.tell.send(Ok(answer));
        Ok(())
    }

    /// Tells the agent to move and takes no new calls.
    fn drain(&mut self) {
        let limit = self.hub.0.limits.drain;
        self.drained_by = Some(Instant::now() + limit);
        if let Some(session) = self.control.as_ref().and_then(Control::session) {
            let drain = proto::Drain { spread_ms: 0, deadline_ms: limit.as_millis() as u32 };
            session.queue.close_with(Some(down(Down::Drain(drain))));
        }
        self.rearm();
    }

    fn is_drained(&self) -> bool {
        let session = self.control.as_ref().and_then(Control::session);
        self.drained_by.is_some()
            && self.tasks.is_empty()
            && session.is_none_or(|session| session.open_calls() == 0 && session.queue.is_empty())
    }

    /// The agent closes, once it has heard of the drain; not we, who would take the
    /// message back with the stream. One that does not gets a moment.
    fn drained(&mut self) {
        if !std::mem::replace(&mut self.empty, true) {
            let soon = Instant::now() + LINGER;
            self.drained_by = self.drained_by.map(|end| end.min(soon));
            self.rearm();
        }
    }

    fn open_calls(&self) -> usize {
        let session = self.control.as_ref().and_then(Control::session);
        session.map_or(0, |session| session.open_calls() as usize)
    }

    fn rearm(&mut self) {
        self.timer.as_mut().reset(Instant::now());
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.keepalive.poll(cx);
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.check(now) {
                Ok(next) => self.timer.as_mut().reset(next.max(now + Duration::from_millis(1))),
                Err(ended) => return Poll::Ready(ended),
            }
        }
        Poll::Pending
    }

    /// What has run out, or when something next may.
    fn check(&mut self, now: Instant) -> Result<Instant, Ended> {
        let mut next = self.keepalive.check(now, self.meter.last_read()).map_err(|_| Ended::Silent)?;
        if let (Some(session), Some(rtt)) =
            (self.control.as_ref().and_then(Control::session), self.keepalive.rtt())
        {
            session.note_rtt(rtt);
        }
        let (due, ended) = match &self.control {
            Some(control) => (control.due(), control.overdue()),
            None if self.tasks.is_empty() => (self.active + self.hub.0.limits.idle, Ended::Idle),
            None => (now + self.hub.0.limits.idle, Ended::Idle),
        };
        let ends = [(Some(due), ended), (self.expires, Ended::Expired), (self.drained_by, Ended::Stopped)];
        for (at, ended) in ends {
            match at {
                Some(at) if at <= now => return Err(ended),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        Ok(next)
    }

    /// Ends the session and its calls at once; what is queued gets a moment to leave.
    async fn close(mut self, ended: Ended) -> Ended {
        let as_asked = ended == Ended::Closed && self.drained_by.is_some();
        let ended = if as_asked { Ended::Stopped } else { ended };
        if let Some(mut control) = self.control.take() {
            control.ended(&ended);
        }
        self.tasks.abort_all();
        if !matches!(ended, Ended::Closed | Ended::Broken(_) | Ended::Silent) {
            self.conn.graceful_shutdown();
            let gone = poll_fn(|cx| {
                while let Poll::Ready(next) = self.conn.poll_accept(cx) {
                    match next {
                        Some(Ok((_, mut respond))) => respond.send_reset(Reason::REFUSED_STREAM),
                        _ => return Poll::Ready(()),
                    }
                }
                Poll::Pending
            });
            // An agent that does not close is cut off.
            let _ = timeout(LINGER, gone).await;
        }
        ended
    }
}
