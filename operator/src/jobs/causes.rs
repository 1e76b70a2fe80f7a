//! Codes of failures of Jobs, and who can mend them.
use culvert_resources::{Failure, WhoCanFix, Why};

/// Who can mend a cause with this code. Codes of the runner and of [`super::outcome`]; what is not known is
/// for whoever owns the cluster, who sees the Job's log.
pub(crate) fn who(code: &str) -> WhoCanFix {
    match code {
        "credentials_expired" | "credentials_invalid" | "access_denied" | "bucket_missing" | "no_space" => {
            WhoCanFix::StorageOwner
        }
        "no_secret"
        | "secret_incomplete"
        | "credentials_missing"
        | "target_configuration"
        | "wrong_region"
        | "no_target"
        | "no_service"
        | "no_backup"
        | "backup_incomplete"
        | "service_stopped"
        | "in_use"
        | "wrong_version"
        | "wrong_engine"
        | "wrong_method"
        | "point_outside_window"
        | "point_in_future"
        | "bad_schedule"
        | "confirm_mismatch"
        | "prior_backup_unfit"
        | "name_taken"
        | "too_small"
        | "backup_damaged"
        | "backup_changed"
        | "no_manifest"
        | "key_missing" => WhoCanFix::Developer,
        "in_progress" | "waiting" | "cancelling" => WhoCanFix::Nobody,
        _ => WhoCanFix::PlatformOperator,
    }
}

/// A cause as a sentence for people.
pub(crate) fn why(code: &str, message: impl Into<String>, next: impl Into<String>) -> Why {
    Why { code: code.to_owned(), message: message.into(), who: who(code), next: next.into(), object: None }
}

/// The same, seen in an object.
pub(crate) fn seen_in(why: Why, kind: &str, name: &str) -> Why {
    Why { object: Some(format!("{kind}/{name}")), ..why }
}

/// What a failed step says, as the cause of the object that waits for it.
pub(crate) fn why_of(failure: &Failure) -> Why {
    why(&failure.code, failure.message.clone(), failure.hint.clone())
}

/// A cause as the end of a step.
pub(crate) fn failure_of(why: &Why, step: &str) -> Failure {
    Failure {
        step: step.to_owned(),
        code: why.code.clone(),
        message: why.message.clone(),
        hint: why.next.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_survives_the_way_through_a_failure() {
        let cause = why("credentials_expired", "The key has expired.", "Put a new one.");
        assert_eq!(why_of(&failure_of(&cause, "upload")), cause);
        assert_eq!(cause.who, WhoCanFix::StorageOwner);
    }
}
