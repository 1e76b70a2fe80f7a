//! What the caller is told when the tunnel has no answer.

use culvert_tunnel::{CallError, Failure, FailureCode, RefusalCode, RejectReason};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::status::{Reason, Refusal};

/// Said of requests that had left when the connection broke.
const PERHAPS: &str = "the request may or may not have been carried out";

pub(crate) fn refusal(error: &CallError, cluster: &str) -> Refusal {
    let agent = format!("the agent of cluster {cluster}");
    match error {
        CallError::NotConnected { since } => {
            let since = since.and_then(|since| {
                OffsetDateTime::from(since).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
            });
            let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
            unavailable("agent_offline", format!("{agent} is not connected{since}")).retry_after(5)
        }
        CallError::Busy => busy(format!("too many requests are waiting for {agent}")),
        CallError::Rejected { reason, message } => rejected(*reason, &agent, message),
        CallError::Failure(failure) => failed(failure, cluster),
        CallError::Deadline => Refusal::new(
            Reason::Timeout,
            "deadline",
            format!("cluster {cluster} did not answer in time; {PERHAPS}"),
        ),
        CallError::Lost => {
            unavailable("agent_lost", format!("the connection to {agent} was lost; {PERHAPS}"))
        }
        CallError::Aborted => unavailable("agent_aborted", format!("{agent} gave the request up; {PERHAPS}")),
        CallError::Cut(refusal)
            if refusal.code == RefusalCode::Locked || refusal.code == RefusalCode::Revoked =>
        {
            Refusal::new(
                Reason::Forbidden,
                refusal.code.as_str(),
                format!("access to cluster {cluster} was ended: {}", refusal.message),
            )
        }
        CallError::Cut(refusal) => {
            unavailable(refusal.code.as_str(), format!("{agent} was cut off: {}", refusal.message))
        }
        CallError::Invalid(why) => {
            Refusal::new(Reason::BadRequest, "invalid", format!("the request cannot be sent: {why}"))
        }
        CallError::RequestBody(_) => {
            Refusal::new(Reason::BadRequest, "body", "the body of the request broke off")
        }
        other => Refusal::new(Reason::InternalError, "tunnel", format!("{agent}: {other}")),
    }
}

fn rejected(reason: RejectReason, agent: &str, message: &str) -> Refusal {
    match reason {
        RejectReason::Busy => busy(format!("{agent} has too many requests open: {message}")),
        RejectReason::Draining => {
            unavailable("agent_draining", format!("{agent} is stopping")).retry_after(2)
        }
        RejectReason::Stale => {
            unavailable("agent_stale", format!("{agent} has just reconnected")).retry_after(1)
        }
        RejectReason::Malformed | RejectReason::Unspecified => Refusal::new(
            Reason::BadRequest,
            "malformed",
            format!("{agent} does not understand the request: {message}"),
        ),
    }
}

fn failed(failure: &Failure, cluster: &str) -> Refusal {
    let message = &failure.message;
    match failure.code {
        FailureCode::Denied => Refusal::new(
            Reason::Forbidden,
            "denied_by_cluster_policy",
            format!("denied by the cluster's own policy: {message}"),
        ),
        FailureCode::Paused => Refusal::new(
            Reason::Forbidden,
            "paused_by_cluster",
            format!("the owner of cluster {cluster} has paused remote access: {message}"),
        ),
        FailureCode::Unreachable => unavailable(
            "api_server_unreachable",
            format!("the agent of cluster {cluster} cannot reach its API server: {message}"),
        ),
        FailureCode::Timeout => Refusal::new(
            Reason::Timeout,
            "api_server_timeout",
            format!("the API server of cluster {cluster} did not answer in time: {message}"),
        ),
        FailureCode::UnknownTarget | FailureCode::Internal | FailureCode::Unspecified => Refusal::new(
            Reason::InternalError,
            "agent_failed",
            format!("the agent of cluster {cluster} failed: {message}"),
        ),
    }
}

fn unavailable(cause: &'static str, message: String) -> Refusal {
    Refusal::new(Reason::ServiceUnavailable, cause, message)
}

fn busy(message: String) -> Refusal {
    Refusal::new(Reason::TooManyRequests, "busy", message).retry_after(1)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn an_offline_agent_is_named_with_since_when() {
        let since = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_500));
        let refusal = refusal(&CallError::NotConnected { since }, "eu");
        assert_eq!(refusal.message, "the agent of cluster eu is not connected since 1970-01-02T00:00:00Z");
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::ServiceUnavailable, Some(5)));
    }

    #[test]
    fn a_clusters_own_policy_is_named() {
        let failure = Failure { code: FailureCode::Denied, message: "read-only".into() };
        let refusal = refusal(&CallError::Failure(failure), "eu");
        assert_eq!(refusal.message, "denied by the cluster's own policy: read-only");
        assert_eq!(refusal.reason, Reason::Forbidden);
    }

    #[test]
    fn what_may_have_been_done_is_never_advised_to_be_repeated() {
        for error in [CallError::Lost, CallError::Aborted, CallError::Deadline] {
            let refusal = refusal(&error, "eu");
            assert!(refusal.retry_after.is_none() && refusal.message.contains(PERHAPS), "{refusal:?}");
        }
    }
}
