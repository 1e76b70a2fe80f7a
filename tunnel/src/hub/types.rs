//! What the controller's end tells and asks: values only.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use culvert_proto::tunnel::v1 as proto;
use uuid::Uuid;

use crate::Refusal;

/// An agent, named by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey {
    /// The organisation.
    pub org: Uuid,
    /// The agent in it.
    pub agent: Uuid,
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.agent)
    }
}

/// Who is at the other end of a connection, as TLS and the socket say. It is an
/// extension of every request that goes to the fallback service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// From the client certificate; `None` when there was none.
    pub agent: Option<AgentKey>,
    /// Where the connection comes from.
    pub source: SocketAddr,
    /// End of the client certificate's life; the session ends with it.
    pub not_after: Option<SystemTime>,
}

/// Decides on a `Hello` of an agent whose certificate is valid.
pub trait Admission: Send + Sync + 'static {
    /// Whether the agent may have a session. Takes no longer than the limit for
    /// a handshake; a longer one refuses with `overloaded`.
    fn admit(
        &self,
        agent: AgentKey,
        hello: &proto::Hello,
        source: SocketAddr,
    ) -> impl Future<Output = Result<Admitted, Refusal>> + Send;
}

/// The agent may have a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The session's epoch will be above this: the highest that the store knows.
    pub epoch_floor: u64,
}

/// A session as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionInfo {
    /// Whose it is.
    pub agent: AgentKey,
    /// Its epoch.
    pub epoch: u64,
    /// The agent's process.
    pub instance: [u8; 16],
    /// The agent's version.
    pub version: String,
    /// What the agent can do beyond the first contract.
    pub capabilities: Vec<String>,
    /// Where it comes from.
    pub source: SocketAddr,
    /// When it began.
    pub connected_at: SystemTime,
    /// When the last heartbeat came; the begin counts as one.
    pub last_heartbeat: SystemTime,
    /// Whether that is less than two periods ago.
    pub fresh: bool,
    /// Whether it takes new calls; not when either end is draining.
    pub accepting: bool,
    /// Round trip of an HTTP/2 PING, when one was measured.
    pub rtt: Option<Duration>,
    /// The agent's clock minus the controller's when the session began, milliseconds.
    pub clock_skew_ms: i64,
    /// Calls that wait or run.
    pub open_calls: u64,
    /// Calls begun since the session began.
    pub calls: u64,
    /// Calls that the agent rejected.
    pub rejected: u64,
    /// Calls ended because nobody read them while memory was short.
    pub reaped: u64,
    /// Bytes received on the connection, inside TLS.
    pub bytes_in: u64,
    /// Bytes sent on the connection, inside TLS.
    pub bytes_out: u64,
    /// What the agent found in its cluster.
    pub facts: Option<proto::Facts>,
}

/// Sums of a whole hub since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Sessions now.
    pub sessions: u64,
    /// Connections now, with or without a session.
    pub connections: u64,
    /// Calls begun.
    pub calls: u64,
    /// Calls refused because too many waited.
    pub busy: u64,
    /// Calls that agents rejected.
    pub rejected: u64,
    /// Calls ended by the reaper.
    pub reaped: u64,
    /// Answers to calls that nobody waits for.
    pub unknown_answers: u64,
}

/// News of sessions. A receiver that lags misses some: read the state again.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// A session began.
    Connected(Box<SessionInfo>),
    /// The agent said something new of its cluster.
    Facts(Box<SessionInfo>),
    /// A session ended.
    Disconnected {
        /// Whose it was.
        agent: AgentKey,
        /// Its epoch.
        epoch: u64,
        /// Why.
        why: Ended,
    },
    /// A second process showed up with the same identity and took over.
    Duplicate {
        /// Whose identity.
        agent: AgentKey,
        /// Where the session that lost came from.
        old: SocketAddr,
        /// Where the session that won comes from.
        new: String,
    },
    /// A `Hello` was refused.
    Refused {
        /// Who.
        agent: AgentKey,
        /// From where.
        source: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The controller stopped and the connection was drained or gave up on it.
    #[error("the controller is stopping")]
    Stopped,
    /// The agent closed it.
    #[error("closed by the agent")]
    Closed,
    /// A newer session of the same agent took over.
    #[error("superseded by epoch {by_epoch}")]
    Superseded {
        /// The epoch of the newer one.
        by_epoch: u64,
    },
    /// It was ended on purpose here.
    #[error("cut: {0}")]
    Cut(Refusal),
    /// Its `Hello` was refused.
    #[error("{0}")]
    Refused(Refusal),
    /// No heartbeat or PING answer came in time.
    #[error("silent for too long")]
    Silent,
    /// Nothing was done with it.
    #[error("idle")]
    Idle,
    /// The certificate of the agent ended.
    #[error("the agent's certificate ended")]
    Expired,
    /// The connection broke, or the other end broke HTTP/2.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// How a call is made.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// Until the answer's head must have come, counted anew while an upload moves.
    pub deadline: Option<Duration>,
    /// The id that logs of both ends share.
    pub request_id: String,
    /// W3C trace context, empty when there is none.
    pub traceparent: String,
    /// How long to wait for an agent that is not connected.
    pub wait_for_agent: Duration,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            // The API server ends its own requests after 60 s.
            deadline: Some(Duration::from_secs(65)),
            request_id: String::new(),
            traceparent: String::new(),
            wait_for_agent: Duration::from_secs(5),
        }
    }
}
