//! One session of one agent, as its connection and its callers share it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind;
use h2::{RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::Queue;
use super::{AgentKey, Ended, SessionInfo};
use crate::holder::OpenCall;
use crate::meter::Meter;
use crate::stream::Group;
use crate::wire::{CallId, Chunk, message};
use crate::{CallError, Limits, RejectReason};

/// The stream of an answer, accepted for the call that waits for it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) recv: RecvStream,
    /// `None` when the agent has reset the stream already; what it sent before
    /// can still be read.
    pub(super) send: Option<SendStream<Chunk>>,
    /// The sending direction was ended as it began.
    pub(super) ended: bool,
}

/// What a waiting call is told.
pub(super) type Told = Result<Answer, (RejectReason, String)>;

/// A call without an answer yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) tell: oneshot::Sender<Told>,
    /// `Open` holds the whole request, so nothing will be sent down.
    pub(super) whole: bool,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agent: AgentKey,
    pub(super) epoch: u64,
    pub(super) hello: proto::Hello,
    pub(super) instance: [u8; 16],
    pub(super) source: SocketAddr,
    pub(super) queue: Queue,
    pub(super) group: Arc<Group>,
    pub(super) meter: Arc<Meter>,
    pending: Mutex<HashMap<CallId, Pending>>,
    facts: Mutex<Option<proto::Facts>>,
    began: Instant,
    connected_at: SystemTime,
    clock_skew_ms: i64,
    fresh: Duration,
    beat_ms: AtomicU64,
    rtt_us: AtomicU64,
    open: AtomicU64,
    calls: AtomicU64,
    rejected: AtomicU64,
}

/// How a session begins.
pub(super) struct Begin {
    pub(super) agent: AgentKey,
    pub(super) hello: proto::Hello,
    pub(super) instance: [u8; 16],
    pub(super) source: SocketAddr,
    pub(super) meter: Arc<Meter>,
    pub(super) now: SystemTime,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl Session {
    /// A session whose first message down is its `Welcome`.
    pub(super) fn new(begin: Begin, epoch: u64, replica: &str, limits: &Limits) -> Self {
        let welcome = proto::Welcome {
            epoch,
            replica: replica.to_owned(),
            heartbeat_ms: limits.heartbeat.as_millis() as u32,
            max_calls: limits.max_calls,
            clock_ms: unix_ms(begin.now),
        };
        let session = Self {
            agent: begin.agent,
            epoch,
            clock_skew_ms: begin.hello.clock_ms.saturating_sub(unix_ms(begin.now)),
            hello: begin.hello,
            instance: begin.instance,
            source: begin.source,
            queue: Queue::new(limits.control_queue, limits.control_queue_bytes),
            group: Arc::default(),
            meter: begin.meter,
            pending: Mutex::default(),
            facts: Mutex::default(),
            began: Instant::now(),
            connected_at: begin.now,
            fresh: limits.fresh(),
            beat_ms: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
            open: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        };
        session.tell(Kind::Welcome(welcome));
        session
    }

    /// Sends a message, whatever waits.
    pub(super) fn tell(&self, kind: Kind) {
        self.queue.push(down(kind));
    }

    pub(super) fn beat(&self) {
        self.beat_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// When the last heartbeat came.
    pub(super) fn last_beat(&self) -> Instant {
        self.began + Duration::from_millis(self.beat_ms.load(Ordering::Relaxed))
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.last_beat().elapsed() < self.fresh
    }

    pub(super) fn note_rtt(&self, rtt: Duration) {
        self.rtt_us.store((rtt.as_micros() as u64).max(1), Ordering::Relaxed);
    }

    pub(super) fn note_facts(&self, facts: proto::Facts) {
        *lock(&self.facts) = Some(facts);
    }

    /// Counts a call among the open ones.
    pub(super) fn open_call(self: &Arc<Self>) -> Arc<OpenGuard> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Arc::new(OpenGuard(self.clone()))
    }

    pub(super) fn open_calls(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn await_answer(&self, id: CallId, pending: Pending) {
        lock(&self.pending).insert(id, pending);
    }

    /// Calls without an answer.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.pending).len()
    }

    /// The call that waits for an answer with this id, if its caller still does.
    pub(super) fn claim(&self, id: CallId) -> Option<Pending> {
        match lock(&self.pending).entry(id) {
            Entry::Occupied(entry) => Some(entry.remove()),
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn reject(&self, reject: &proto::Reject) {
        let pending = CallId::from_bytes(&reject.call_id).and_then(|id| self.claim(id));
        if let Some(pending) = pending {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            // The caller may have gone in this moment.
            let _ = pending.tell.send(Err((reject.reason(), reject.message.chars().take(512).collect())));
        }
    }

    /// No answer will come any more.
    pub(super) fn abandon_all(&self, why: Ended) {
        self.queue.end(why);
        lock(&self.pending).clear();
    }

    /// What a call is told that lost its session.
    pub(super) fn lost(&self) -> CallError {
        match self.queue.why_ended() {
            Some(Ended::Cut(refusal)) => CallError::Cut(refusal),
            _ => CallError::Lost,
        }
    }

    /// Calls that were offered to the agent.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    pub(super) fn info(&self) -> SessionInfo {
        let rtt = self.rtt_us.load(Ordering::Relaxed);
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        SessionInfo {
            agent: self.agent,
            epoch: self.epoch,
            instance: self.instance,
            version: self.hello.version.clone(),
            capabilities: self.hello.capabilities.clone(),
            source: self.source,
            connected_at: self.connected_at,
            last_heartbeat: self.connected_at + beat,
            fresh: self.is_fresh(),
            accepting: self.queue.is_open(),
            rtt: (rtt > 0).then(|| Duration::from_micros(rtt)),
            clock_skew_ms: self.clock_skew_ms,
            open_calls: self.open_calls(),
            calls: self.calls(),
            rejected: self.rejected(),
            reaped: self.group.reaped(),
            bytes_in: self.meter.bytes_in(),
            bytes_out: self.meter.bytes_out(),
            facts: lock(&self.facts).clone(),
        }
    }
}

/// Counts one open call.
#[derive(Debug)]
pub(super) struct OpenGuard(Arc<Session>);

impl OpenCall for OpenGuard {}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 && !self.0.queue.is_open() {
            self.0.queue.wake();
        }
    }
}

/// Sends `Cancel` for a call that nobody waits for any more.
pub(super) struct CancelGuard {
    pub(super) session: Arc<Session>,
    pub(super) id: CallId,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if self.session.claim(self.id).is_some() {
            self.session.tell(Kind::Cancel(proto::Cancel { call_id: self.id.to_bytes() }));
        }
    }
}

/// A message down, framed.
pub(super) fn down(kind: Kind) -> Bytes {
    message(&proto::ControlDown { kind: Some(kind) })
}
