//! Why a controller will not have a connection, and how that travels: as
//! trailers of a gRPC status, the same for the tunnel and for enrolment.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

/// Trailer that names the cause.
pub const REFUSAL: &str = "culvert-refusal";
/// Trailer with milliseconds to wait before the next attempt.
pub const RETRY_AFTER: &str = "culvert-retry-after-ms";
/// Longest message taken from a trailer, characters.
const MAX_MESSAGE: usize = 1024;

/// The cause of a refusal; its text is part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The cluster or the agent is locked.
    Locked,
    /// The identity was revoked or its cluster deleted.
    Revoked,
    /// The agent's version is below what the controller takes.
    VersionTooOld,
    /// Another process holds the same identity.
    DuplicateIdentity,
    /// The agent offered itself as a reserve, and another session lives.
    Standby,
    /// The agent's clock is too far off.
    ClockSkew,
    /// The controller takes no more connections now.
    Overloaded,
    /// The controller is stopping.
    Draining,
    /// No valid identity.
    Unauthenticated,
    /// The other end broke the tunnel's protocol.
    Protocol,
    /// A cause this version does not know.
    Other,
}

impl RefusalCode {
    const ALL: [Self; 11] = [
        Self::Locked,
        Self::Revoked,
        Self::VersionTooOld,
        Self::DuplicateIdentity,
        Self::Standby,
        Self::ClockSkew,
        Self::Overloaded,
        Self::Draining,
        Self::Unauthenticated,
        Self::Protocol,
        Self::Other,
    ];

    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Revoked => "revoked",
            Self::VersionTooOld => "version_too_old",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::Standby => "standby",
            Self::ClockSkew => "clock_skew",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::Unauthenticated => "unauthenticated",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }

    /// Reads the text on the wire; what is unknown becomes [`RefusalCode::Other`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or(Self::Other)
    }

    fn grpc(self) -> tonic::Code {
        match self {
            Self::Locked | Self::Revoked | Self::DuplicateIdentity => tonic::Code::PermissionDenied,
            Self::VersionTooOld | Self::ClockSkew => tonic::Code::FailedPrecondition,
            Self::Standby => tonic::Code::AlreadyExists,
            Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::Draining => tonic::Code::Unavailable,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::Protocol => tonic::Code::InvalidArgument,
            Self::Other => tonic::Code::Unknown,
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A connection or session that the controller will not have, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused ({code}): {message}")]
pub struct Refusal {
    /// The cause.
    pub code: RefusalCode,
    /// One sentence for the agent's log: what, and who can mend it.
    pub message: String,
    /// How long the agent should wait before it tries again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without advice on when to come back.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same, with the time to wait before the next attempt.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The gRPC status with this refusal in its trailers.
    #[must_use]
    pub fn to_status(&self) -> tonic::Status {
        let mut status = tonic::Status::new(self.code.grpc(), self.message.clone());
        let metadata = status.metadata_mut();
        metadata.insert(REFUSAL, tonic::metadata::MetadataValue::from_static(self.code.as_str()));
        if let Some(wait) = self.retry_after {
            metadata.insert(RETRY_AFTER, (wait.as_millis() as u64).into());
        }
        status
    }

    /// The refusal in a gRPC status, if it carries one.
    #[must_use]
    pub fn from_status(status: &tonic::Status) -> Option<Self> {
        let text = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
        Some(Self {
            code: RefusalCode::parse(text(REFUSAL)?),
            message: status.message().chars().take(MAX_MESSAGE).collect(),
            retry_after: text(RETRY_AFTER).and_then(|ms| ms.parse().ok()).map(Duration::from_millis),
        })
    }

    /// Trailers that end a stream with this refusal.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        // A status made here is always a valid header block.
        if self.to_status().add_header(&mut map).is_err() {
            map.insert("grpc-status", HeaderValue::from_static("2"));
        }
        map
    }

    /// The refusal in trailers; a failed status without one becomes `Other`.
    /// `None` when the status is OK or missing.
    pub(crate) fn from_trailers(map: &HeaderMap) -> Option<Self> {
        let status = tonic::Status::from_header_map(map)?;
        if status.code() == tonic::Code::Ok {
            return None;
        }
        Some(Self::from_status(&status).unwrap_or_else(|| {
            let message: String = status.message().chars().take(MAX_MESSAGE).collect();
            Self::new(RefusalCode::Other, format!("{:?}: {message}", status.code()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_its_trailers() {
        for code in RefusalCode::ALL {
            let refusal =
                Refusal::new(code, "gesperrt: naïve % text\u{2014}").after(Duration::from_millis(1500));
            assert_eq!(Refusal::from_trailers(&refusal.trailers()), Some(refusal));
        }
    }

    #[test]
    fn an_ok_status_is_no_refusal() {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(Refusal::from_trailers(&map), None);
        assert_eq!(Refusal::from_trailers(&HeaderMap::new()), None);
    }

    #[test]
    fn an_unknown_cause_is_kept_as_other() {
        assert_eq!(RefusalCode::parse("eaten_by_bear"), RefusalCode::Other);
    }
}
