//! The controller's end: sessions of agents, and calls to them.

mod call;
mod cluster;
mod conduct;
mod control;
mod fallback;
#[cfg(test)]
mod model;
mod queue;
mod registry;
mod serve;
mod session;
mod types;
mod upgrade;
mod way;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_down::Kind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::peer::{self, Lines, Moved, Owner, Peering};
use crate::stream::Ledger;
use crate::{BoxError, Limits, Refusal, RefusalCode};

pub use cluster::Cluster;
pub(crate) use control::grpc_response;
use registry::{Claim, Registry, Taken};
pub(crate) use serve::builder;
pub(crate) use session::unix_ms;
use session::{Begin, Session};
pub use types::{
    Admission, Admitted, AgentKey, CallOptions, Ended, HubCounts, Peer, SessionEvent, SessionInfo,
};

/// Events that a slow receiver may be behind before it misses some.
const EVENTS: usize = 1024;

/// All sessions of this replica. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    replica: String,
    limits: Limits,
    registry: Mutex<Registry<AgentKey, Arc<Session>>>,
    arrived: Notify,
    lines: OnceLock<Lines>,
    events: broadcast::Sender<SessionEvent>,
    ledger: Ledger,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    calls: AtomicU64,
    busy: AtomicU64,
    rejected: AtomicU64,
    reaped: AtomicU64,
    unknown_answers: AtomicU64,
}

impl Hub {
    /// A hub without sessions. `replica` names this process in logs of agents.
    #[must_use]
    pub fn new(replica: String, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            replica,
            registry: Mutex::new(Registry::new()),
            arrived: Notify::new(),
            lines: OnceLock::new(),
            events: broadcast::Sender::new(EVENTS),
            ledger: Ledger::new(&limits),
            limits,
            counters: Counters::default(),
        }))
    }

    /// Serves one agent's connection, the plain side of its TLS, until it ends.
    /// Requests that are not the tunnel's go to `fallback`, with the [`Peer`] in
    /// their extensions. When `stop` is cancelled the agent is told to move, and
    /// calls get the limit for a drain to end. Dropping the future cuts it all.
    pub async fn serve<IO, A, S, B>(
        &self,
        io: IO,
        peer: Peer,
        admission: A,
        fallback: S,
        stop: CancellationToken,
    ) -> Ended
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Admission,
        S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>>,
        S: Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.0.counters.connections.fetch_add(1, Ordering::Relaxed);
        let _leaving = Leaving(self.clone());
        Box::pin(serve::serve(self.clone(), io, peer, admission, fallback, stop)).await
    }

    /// The name of this process in logs of agents.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.0.replica
    }

    /// Makes this replica one of several; calls to agents that are connected to another
    /// one go there. Once; whatever is said later is not heard.
    pub fn join(&self, peering: impl Peering) {
        let lines = Lines::new(peering, self.0.limits.clone());
        if self.0.lines.set(lines).is_err() {
            tracing::warn!("this replica has joined the others already");
        }
    }

    /// Serves the connection of another replica, the plain side of its TLS, which has
    /// proved to be one. When `stop` is cancelled its calls get the limit for a drain.
    pub async fn serve_replica<IO>(&self, io: IO, stop: CancellationToken)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Box::pin(peer::serve(self.clone(), io, stop)).await;
    }

    /// Tells another replica that an agent's session has moved here from it.
    pub async fn tell_moved(&self, owner: &Owner, moved: &Moved) -> io::Result<()> {
        let Some(lines) = self.0.lines.get() else { return Ok(()) };
        let line = lines.line(owner).await?;
        peer::tell(&line, moved).await.map_err(io::Error::other)
    }

    /// Takes note that the agent has a session elsewhere: one here that is older is
    /// told, and ends.
    pub fn moved(&self, moved: &Moved) {
        // It may be heard twice, and the first word is the one.
        let is_old = |old: &Arc<Session>| old.epoch < moved.epoch && old.queue.why_ended().is_none();
        let Some(old) = self.current(moved.agent).filter(is_old) else { return };
        let same_instance = old.instance == moved.instance;
        self.supersede(&old, moved.epoch, &moved.source, same_instance);
    }

    /// The agent's cluster as a service. It need not be connected now.
    #[must_use]
    pub fn cluster(&self, agent: AgentKey) -> Cluster {
        Cluster::new(self.clone(), agent)
    }

    /// The agent's session, if it has one here.
    #[must_use]
    pub fn session(&self, agent: AgentKey) -> Option<SessionInfo> {
        self.current(agent).map(|session| session.info())
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let sessions: Vec<Arc<Session>> = self.registry().all().cloned().collect();
        sessions.iter().map(|session| session.info()).collect()
    }

    /// Sums since the hub began.
    #[must_use]
    pub fn counts(&self) -> HubCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sessions, rejected, reaped) =
            self.registry().all().fold((0, 0, 0), |(count, rejected, reaped), session| {
                (count + 1, rejected + session.rejected(), reaped + session.group.reaped())
            });
        let counters = &self.0.counters;
        HubCounts {
            sessions,
            connections: get(&counters.connections),
            calls: get(&counters.calls),
            busy: get(&counters.busy),
            rejected: get(&counters.rejected) + rejected,
            reaped: get(&counters.reaped) + reaped,
            unknown_answers: get(&counters.unknown_answers),
        }
    }

    /// News of sessions from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.0.events.subscribe()
    }

    /// Ends the agent's session and every call of it at once; the agent is told why.
    pub fn cut(&self, agent: AgentKey, why: Refusal) {
        if let Some(session) = self.current(agent) {
            session.abandon_all(Ended::Cut(why));
        }
    }

    /// Asks the agent to renew its certificate now.
    pub fn renew(&self, agent: AgentKey) {
        if let Some(session) = self.current(agent) {
            session.tell(Kind::Renew(proto::Renew {}));
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry<AgentKey, Arc<Session>>> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self, agent: AgentKey) -> Option<Arc<Session>> {
        self.registry().current(agent).cloned()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Begins a session, and tells the one before it.
    fn begin(&self, begin: Begin, standby: bool, floor: u64) -> Result<Arc<Session>, Refusal> {
        let (instance, last_epoch, now) = (begin.instance, begin.hello.last_epoch, Instant::now());
        let claim = Claim { instance, last_epoch, standby, floor, now };
        let (agent, source) = (begin.agent, begin.source);
        let limits = &self.0.limits;
        let begun = self.registry().begin(
            agent,
            &claim,
            |old| old.is_fresh(),
            |epoch| Arc::new(Session::new(begin, epoch, &self.0.replica, limits)),
        );
        let begun = begun.map_err(|taken| self.taken(agent, source, &taken))?;
        if let Some((old, same_instance)) = begun.displaced {
            let new = &begun.session;
            if !same_instance && share_a_place(&old.hello, &new.hello) {
                self.hand_over(&old, new);
            } else {
                self.supersede(&old, new.epoch, &new.source.to_string(), same_instance);
            }
        }
        let session = begun.session;
        tracing::info!(%agent, epoch = session.epoch, %source, version = session.hello.version, "agent connected");
        self.0.arrived.notify_waiters();
        self.emit(SessionEvent::Connected(Box::new(session.info())));
        Ok(session)
    }

    /// The reserve is refused. One that should have ended long ago is a second holder.
    fn taken(&self, agent: AgentKey, source: SocketAddr, taken: &Taken) -> Refusal {
        if taken.outstayed
            && let Some(current) = self.current(agent)
        {
            self.duplicate(agent, source, &current.source.to_string());
        }
        Refusal::new(RefusalCode::Standby, "another session of this agent lives")
    }

    /// Tells a session that the next process of its place took over: its calls run on.
    fn hand_over(&self, old: &Session, new: &Session) {
        let (by_epoch, source) = (new.epoch, new.source.to_string());
        tracing::info!(agent = %old.agent, old = %old.source, new = source, "handed over to the next process");
        self.registry().hand_over(old.agent, old.instance, Instant::now());
        let message = proto::Superseded { by_epoch, same_instance: false, source, handed_over: true };
        old.queue.close_with(Some(session::down(Kind::Superseded(message))));
    }

    /// Tells a session that a newer one took over. One of the same process, or of
    /// a process that said it is stopping, hands over: its calls run on.
    fn supersede(&self, old: &Session, by_epoch: u64, source: &str, same_instance: bool) {
        let same_instance = same_instance || !old.queue.is_open();
        let message =
            proto::Superseded { by_epoch, same_instance, source: source.to_owned(), handed_over: false };
        old.queue.close_with(Some(session::down(Kind::Superseded(message))));
        if !same_instance {
            self.duplicate(old.agent, old.source, source);
            old.abandon_all(Ended::Superseded { by_epoch });
        }
    }

    fn duplicate(&self, agent: AgentKey, old: SocketAddr, new: &str) {
        tracing::warn!(%agent, %old, new, "two processes hold one identity");
        self.emit(SessionEvent::Duplicate { agent, old, new: new.to_owned() });
    }

    /// Ends a session: its calls fail, a newer session is left alone.
    fn end(&self, session: &Session, why: &Ended) {
        session.abandon_all(why.clone());
        self.0.ledger.end_group(&session.group);
        let was_current = self.registry().end(session.agent, session.epoch, SystemTime::now());
        let counters = &self.0.counters;
        counters.rejected.fetch_add(session.rejected(), Ordering::Relaxed);
        counters.reaped.fetch_add(session.group.reaped(), Ordering::Relaxed);
        let (agent, epoch) = (session.agent, session.epoch);
        tracing::info!(%agent, epoch, %why, "agent's session ended");
        if was_current {
            self.emit(SessionEvent::Disconnected { agent, epoch, why: why.clone() });
        }
    }

    fn emit(&self, event: SessionEvent) {
        // Nobody need listen.
        let _ = self.0.events.send(event);
    }
}

/// Whether two processes keep their state in one place, so that one follows the other as
/// pods do. A copied identity lies in another place.
fn share_a_place(old: &proto::Hello, new: &proto::Hello) -> bool {
    !new.place.is_empty() && new.place == old.place
}

/// Counts a connection out.
struct Leaving(Hub);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
