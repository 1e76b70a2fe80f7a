//! Why the app did not do what it was asked.

use std::time::Duration;

use thiserror::Error;

use crate::domain::Fault;
use crate::domain::cluster::NotACluster;
use crate::domain::id::NotAnId;
use crate::domain::page::BadCursor;
use crate::store::StoreError;

/// The kinds of failure. What each carries helps the caller act; what only helps
/// us is its source, for the log.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such thing, or the caller may not know of it.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Nobody was authenticated.
    #[error("{reason}")]
    Unauthenticated {
        /// A stable word for programs.
        code: &'static str,
        /// Why the credential was not accepted.
        reason: String,
    },
    /// The caller may not do this.
    #[error("{reason}")]
    Denied {
        /// A stable word for programs.
        code: &'static str,
        /// Which rule said so.
        reason: String,
        /// Who can change it, or what to do instead.
        next: String,
    },
    /// It does not go with how things are.
    #[error("{reason}")]
    Conflict {
        /// A stable word for programs.
        code: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// It does not go with how things are, and there is a way on.
    #[error("{reason}")]
    Refused {
        /// A stable word for programs.
        code: &'static str,
        /// What is in the way.
        reason: String,
        /// What to do next.
        next: String,
        /// More, for programs: such as both versions of what two people changed.
        details: Option<Box<serde_json::Value>>,
    },
    /// A cluster could not be asked.
    #[error("{reason}")]
    Away {
        /// A stable word for programs.
        code: &'static str,
        /// Why.
        reason: String,
        /// What to do next.
        next: String,
    },
    /// What was asked has faults.
    #[error("the request has {} fault(s)", .0.len())]
    Invalid(Vec<Fault>),
    /// Too many attempts.
    #[error("too many attempts")]
    TooMany {
        /// When to try again.
        retry_after: Duration,
    },
    /// It cannot be done now.
    #[error("the database cannot be used now")]
    Unavailable(#[source] StoreError),
    /// We failed.
    #[error("{what}")]
    Internal {
        /// What we were doing.
        what: &'static str,
        /// What went wrong below.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// One fault of one field.
    pub fn invalid(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault::new(field, code, detail)])
    }

    /// A refusal with the way on.
    pub fn refused(code: &'static str, reason: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into(), next: next.into(), details: None }
    }

    /// A failure of ours while doing `what`.
    pub fn internal(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { what, source: source.into() }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error),
            // A parent that vanished between reading and writing was deleted by
            // somebody else: the caller is told the same as a moment later.
            StoreError::Orphan(_) => Self::NotFound("cluster"),
            other => Self::internal("the store failed", other),
        }
    }
}

impl From<NotAnId> for Error {
    fn from(_: NotAnId) -> Self {
        Self::NotFound("thing")
    }
}

impl From<NotACluster> for Error {
    fn from(_: NotACluster) -> Self {
        Self::NotFound("cluster")
    }
}

impl From<BadCursor> for Error {
    fn from(error: BadCursor) -> Self {
        Self::invalid("after", "invalid", error.to_string())
    }
}

impl From<culvert_pki::NoRandomness> for Error {
    fn from(error: culvert_pki::NoRandomness) -> Self {
        Self::internal("no random bytes", error)
    }
}
