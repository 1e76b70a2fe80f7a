//! Why an owner has no answer, between two replicas: each kind arrives as itself.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use culvert_proto::peer::v1 as peer;
use culvert_proto::peer::v1::trouble::Kind;
use culvert_proto::tunnel::v1 as proto;
use prost::Message as _;

use crate::hub::unix_ms;
use crate::{CallError, Refusal, RefusalCode, WireError};

/// The one header of a head that tells of a trouble.
const TROUBLE: &str = "culvert-trouble";

/// The head that tells why there is no answer.
pub(crate) fn head_of(error: CallError) -> proto::Head {
    let nothing = peer::Nothing {};
    let kind = match error {
        CallError::Failure(failure) => {
            return proto::Head { failure: Some(failure.into()), ..proto::Head::default() };
        }
        CallError::NotConnected { since } => {
            Kind::NotConnected(peer::NotConnected { since_ms: since.map_or(0, unix_ms) })
        }
        CallError::Busy => Kind::Busy(nothing),
        CallError::Rejected { reason, message } => {
            Kind::Rejected(peer::Rejected { reason: reason.into(), message })
        }
        CallError::Deadline => Kind::Deadline(nothing),
        // The caller's body breaks off by a reset, which nobody hears an answer to.
        CallError::Lost | CallError::RequestBody(_) => Kind::Lost(nothing),
        CallError::Aborted => Kind::Aborted(nothing),
        CallError::Cut(refusal) => {
            Kind::Cut(peer::Cut { code: refusal.code.as_str().to_owned(), message: refusal.message })
        }
        CallError::Protocol(_) => Kind::Protocol(nothing),
        CallError::Invalid(why) => Kind::Invalid(why.to_owned()),
    };
    let value = peer::Trouble { kind: Some(kind) }.encode_to_vec().into();
    let header = proto::Header { name: TROUBLE.to_owned(), value };
    proto::Head { headers: vec![header], ..proto::Head::default() }
}

/// The trouble that a head of another replica's tells of, if it does.
pub(crate) fn trouble_in(head: &proto::Head) -> Option<CallError> {
    let [header] = head.headers.as_slice() else { return None };
    (head.status == 0 && header.name == TROUBLE).then(|| read(header.value.clone()))
}

fn read(value: Bytes) -> CallError {
    let kind = peer::Trouble::decode(value).ok().and_then(|trouble| trouble.kind);
    match kind {
        Some(Kind::NotConnected(told)) => CallError::NotConnected { since: since(told.since_ms) },
        Some(Kind::Busy(_)) => CallError::Busy,
        Some(Kind::Rejected(told)) => CallError::Rejected { reason: told.reason(), message: told.message },
        Some(Kind::Deadline(_)) => CallError::Deadline,
        Some(Kind::Lost(_)) => CallError::Lost,
        Some(Kind::Aborted(_)) => CallError::Aborted,
        Some(Kind::Cut(told)) => CallError::Cut(Refusal::new(RefusalCode::parse(&told.code), told.message)),
        Some(Kind::Invalid(_)) => CallError::Invalid("the replica that holds the agent would not send it"),
        Some(Kind::Protocol(_)) | None => CallError::Protocol(WireError::Malformed),
    }
}

fn since(ms: i64) -> Option<SystemTime> {
    let since = u64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RejectReason;

    #[test]
    fn every_trouble_arrives_as_itself() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let all = [
            CallError::NotConnected { since: Some(at) },
            CallError::NotConnected { since: None },
            CallError::Busy,
            CallError::Rejected { reason: RejectReason::Draining, message: "stopping".into() },
            CallError::Deadline,
            CallError::Lost,
            CallError::Aborted,
            CallError::Cut(Refusal::new(RefusalCode::Locked, "on request")),
            CallError::Protocol(WireError::Malformed),
        ];
        for error in all {
            let want = format!("{error:?}");
            assert_eq!(format!("{:?}", trouble_in(&head_of(error)).unwrap()), want);
        }
    }

    #[test]
    fn an_answer_and_an_agents_own_failure_are_no_trouble() {
        let header = proto::Header { name: TROUBLE.into(), value: Bytes::new() };
        let answer = proto::Head { status: 200, headers: vec![header], failure: None };
        assert!(trouble_in(&answer).is_none());
        let failure = crate::Failure::new(crate::FailureCode::Denied, "no");
        assert!(trouble_in(&head_of(CallError::Failure(failure))).is_none());
    }
}
