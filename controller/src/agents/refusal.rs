//! How a cause of refusal travels to an agent, and back from the tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use culvert_tunnel::{REFUSAL, RETRY_AFTER, Refusal, RefusalCode};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::app::TurnedAway;
use crate::domain::Cause;

/// The status an enrolment ends with: the cause in its metadata, and in its message what was
/// seen and what to do next.
pub(crate) fn status(cause: Cause, detail: &str, retry_after: Option<Duration>) -> Status {
    let mut status = Status::new(code(cause), sentence(cause, detail));
    status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(cause.code()));
    if let Some(wait) = retry_after {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(RETRY_AFTER, wait.into());
    }
    status
}

/// What an enrolment that the app turned away ends with.
pub(crate) fn status_of(turned: &TurnedAway) -> Status {
    status(turned.cause, &turned.detail, turned.retry_after)
}

/// What a session that the app turned away ends with. The tunnel knows fewer causes than there
/// are; the sentence tells the rest.
pub(crate) fn refusal_of(turned: &TurnedAway) -> Refusal {
    let code = match turned.cause {
        Cause::CertificateUnknown => RefusalCode::Revoked,
        Cause::Internal | Cause::RateLimited => RefusalCode::Overloaded,
        cause => RefusalCode::parse(cause.code()),
    };
    let refusal = Refusal::new(code, sentence(turned.cause, &turned.detail));
    match turned.retry_after {
        Some(wait) => refusal.after(wait),
        None => refusal,
    }
}

/// One line in the log for each agent that was turned away; a failure of ours is an error.
pub(crate) fn report(what: &'static str, source: SocketAddr, turned: &TurnedAway) {
    match &turned.source {
        Some(error) => {
            tracing::error!(what, %source, error = error as &dyn std::error::Error, "an agent was turned away because the controller failed")
        }
        None => {
            tracing::info!(what, %source, cause = %turned.cause, detail = turned.detail, "an agent was turned away")
        }
    }
}

fn sentence(cause: Cause, detail: &str) -> String {
    if detail.is_empty() || detail == cause.summary() {
        format!("{} {}", cause.summary(), cause.fix())
    } else {
        format!("{} ({detail}) {}", cause.summary(), cause.fix())
    }
}

fn code(cause: Cause) -> Code {
    match cause {
        Cause::TokenUnknown | Cause::CertificateUnknown => Code::NotFound,
        Cause::TokenUsed | Cause::Standby => Code::AlreadyExists,
        Cause::TokenMalformed | Cause::CsrInvalid | Cause::Protocol => Code::InvalidArgument,
        Cause::VersionTooOld | Cause::ClockSkew => Code::FailedPrecondition,
        Cause::RateLimited | Cause::Overloaded => Code::ResourceExhausted,
        Cause::Draining => Code::Unavailable,
        Cause::Unauthenticated | Cause::CertificateExpired => Code::Unauthenticated,
        Cause::Internal => Code::Internal,
        _ => Code::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_reaches_the_agent_with_its_code_and_what_to_do() {
        for cause in Cause::ALL {
            let status = status(*cause, "seen at 192.0.2.1", None);
            assert_eq!(status.metadata().get(REFUSAL).unwrap(), cause.code());
            assert!(
                status.message().contains("192.0.2.1") && status.message().ends_with(cause.fix()),
                "{status:?}"
            );
        }
    }

    #[test]
    fn a_session_is_refused_with_a_code_that_the_tunnel_knows() {
        for cause in [
            Cause::Locked,
            Cause::Revoked,
            Cause::VersionTooOld,
            Cause::ClockSkew,
            Cause::CertificateUnknown,
            Cause::Internal,
        ] {
            let turned = TurnedAway { cause, detail: "seen".into(), retry_after: None, source: None };
            let refusal = refusal_of(&turned);
            assert_ne!(refusal.code, RefusalCode::Other, "{cause}");
            assert!(
                refusal.message.contains("seen") && refusal.message.ends_with(cause.fix()),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn a_wait_is_told_in_milliseconds() {
        let status = status(Cause::RateLimited, "", Some(Duration::from_millis(1500)));
        assert_eq!(status.metadata().get(RETRY_AFTER).unwrap(), "1500");
    }
}
