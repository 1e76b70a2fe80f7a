//! What can go wrong with a call, in words its caller can act on.

use std::time::SystemTime;

use culvert_proto::tunnel::v1 as proto;

use crate::wire::WireError;

/// Why the agent itself refused or failed a call.
pub type FailureCode = proto::failure::Code;

/// The agent, not the target, refused or failed a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub code: FailureCode,
    /// What, why and who can mend it, in one sentence.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Failure> for proto::Failure {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code.into(), message: failure.message }
    }
}

impl From<proto::Failure> for Failure {
    fn from(failure: proto::Failure) -> Self {
        Self { code: failure.code(), message: failure.message }
    }
}

/// Why an agent did not take a call.
pub type RejectReason = proto::reject::Reason;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The agent has no session here.
    #[error("the cluster's agent is not connected")]
    NotConnected {
        /// When its last session ended, if one is known since this process began.
        since: Option<SystemTime>,
    },
    /// Too much waits for this agent already; trying again soon may work.
    #[error("too many requests are waiting for the cluster's agent")]
    Busy,
    /// The agent would not take the call.
    #[error("the cluster's agent did not take the request: {message}")]
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The agent's words.
        message: String,
    },
    /// The agent took the call, and refused or failed it itself.
    #[error("{0}")]
    Failure(Failure),
    /// The answer's head did not come in time.
    #[error("the cluster did not answer in time")]
    Deadline,
    /// The connection to the agent broke before the answer's head.
    #[error("the connection to the cluster's agent was lost")]
    Lost,
    /// The agent gave the call up before the answer's head.
    #[error("the cluster's agent gave the request up")]
    Aborted,
    /// The session was ended here, as by a lock.
    #[error("the session was ended ({})", .0.code)]
    Cut(crate::Refusal),
    /// The agent's answer broke the protocol.
    #[error("the cluster's agent answered with what is not understood")]
    Protocol(#[from] WireError),
    /// The request cannot be sent through the tunnel.
    #[error("the request cannot be sent: {0}")]
    Invalid(&'static str),
    /// The request's own body failed while it was read.
    #[error("the request's body failed")]
    RequestBody(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a body or byte stream ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The other end gave the call up.
    #[error("the other end of the tunnel gave the call up")]
    Aborted,
    /// The connection under it broke.
    #[error("the tunnel's connection was lost")]
    Lost,
    /// Its bytes were not read while memory was short.
    #[error("the call was ended because its bytes were not read while memory was short")]
    Reaped,
    /// The other end broke the protocol.
    #[error("the tunnel's protocol was broken")]
    Protocol(#[from] WireError),
}

impl BodyError {
    pub(crate) fn from_h2(error: &h2::Error) -> Self {
        if error.is_reset() { Self::Aborted } else { Self::Lost }
    }
}

impl From<BodyError> for std::io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match error {
            BodyError::Aborted => std::io::ErrorKind::ConnectionReset,
            BodyError::Lost => std::io::ErrorKind::ConnectionAborted,
            BodyError::Reaped => std::io::ErrorKind::TimedOut,
            BodyError::Protocol(_) => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl From<BodyError> for CallError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Aborted | BodyError::Reaped => Self::Aborted,
            BodyError::Lost => Self::Lost,
            BodyError::Protocol(error) => Self::Protocol(error),
        }
    }
}
