//! What a Backup's status says while its Job runs, and when it has ended.

use culvert_resources::{BackupPhase, BackupStatus, ConditionType, Failure, Progress, RecoverableRange};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::backup::manifest::{Manifest, Sealed};
use crate::pack::Meter;

/// The runner's part of a Backup's status. All of it is applied each time: what is left out would go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report(BackupStatus);

impl Report {
    /// A new attempt begins, after what the status says already.
    pub(super) fn begin(before: Option<&BackupStatus>, path: &str, now: Timestamp) -> Self {
        let attempt = before.map_or(0, |status| status.attempt);
        let started_at = before.and_then(|status| status.started_at.clone());
        Self(BackupStatus {
            phase: Some(BackupPhase::Running),
            attempt: attempt + 1,
            started_at: Some(started_at.unwrap_or(Time(now))),
            path: Some(path.to_owned()),
            ..BackupStatus::default()
        })
    }

    /// Which attempt this is, from 1.
    pub(super) fn attempt(&self) -> i64 {
        self.0.attempt
    }

    /// When the first attempt began.
    pub(super) fn started_at(&self, now: Timestamp) -> Timestamp {
        self.0.started_at.as_ref().map_or(now, |at| at.0)
    }

    /// How far it is.
    pub(super) fn progress(&mut self, meter: &Meter, now: Timestamp) {
        self.0.progress = Some(Progress {
            step: meter.current_step().to_owned(),
            done_bytes: signed(meter.done()),
            // An estimate; what was copied may be more.
            total_bytes: meter.total().map(|total| signed(total.max(meter.done()))),
            at: Some(Time(now)),
        });
        self.0.stored_bytes = Some(signed(meter.stored()));
    }

    /// It lies in the target, whole.
    pub(super) fn complete(&mut self, made: &Sealed, now: Timestamp) {
        let manifest = &made.manifest;
        self.0.phase = Some(BackupPhase::Complete);
        self.0.ended_at = Some(Time(now));
        self.0.progress = None;
        self.0.failure = None;
        self.0.data_bytes = Some(signed(manifest.data_bytes));
        self.0.stored_bytes = Some(signed(manifest.stored_bytes));
        self.0.manifest_digest = Some(made.digest.clone());
        self.0.made_from = Some(format!("{} {}", manifest.engine, manifest.version));
        self.0.encrypted = Some(manifest.encryption.is_some());
        self.0.recoverable = Some(recoverable(manifest));
        let message = format!("{} bytes of data lie in {} bytes", manifest.data_bytes, manifest.stored_bytes);
        self.0.conditions = vec![condition(ConditionType::Complete, "Stored", message, now)];
    }

    /// This attempt ended badly; `over` when there is no other.
    pub(super) fn failed(&mut self, failure: &Failure, over: bool, now: Timestamp) {
        self.0.progress = None;
        self.0.stored_bytes = None;
        self.0.failure = Some(failure.clone());
        if over {
            self.0.phase = Some(BackupPhase::Failed);
            self.0.ended_at = Some(Time(now));
            let message = failure.message.clone();
            self.0.conditions = vec![condition(ConditionType::Failed, "Failed", message, now)];
        }
    }

    /// As it is applied.
    pub(super) fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(&self.0)
    }
}

fn recoverable(manifest: &Manifest) -> RecoverableRange {
    RecoverableRange { from: Time(manifest.recoverable.from), until: Time(manifest.recoverable.until) }
}

fn condition(kind: ConditionType, reason: &str, message: String, now: Timestamp) -> Condition {
    Condition {
        type_: kind.as_str().to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn attempts_are_counted_and_the_first_beginning_stays() {
        let first = Report::begin(None, "p", at(1));
        let second = Report::begin(Some(&first.0), "p", at(2));
        assert_eq!((second.attempt(), second.started_at(at(9))), (2, at(1)));
    }

    #[test]
    fn an_attempt_that_failed_is_not_the_end_while_others_are_left() {
        let failure =
            Failure { step: "copy".into(), code: "c".into(), message: "m".into(), hint: String::new() };
        let mut report = Report::begin(None, "p", at(1));
        report.failed(&failure, false, at(2));
        assert_eq!((report.0.phase, report.0.ended_at.is_none()), (Some(BackupPhase::Running), true));
        report.failed(&failure, true, at(3));
        assert_eq!((report.0.phase, report.0.conditions.len()), (Some(BackupPhase::Failed), 1));
    }

    #[test]
    fn progress_never_says_more_than_all() {
        let (meter, mut report) = (Meter::default(), Report::begin(None, "p", at(1)));
        meter.expect(10);
        meter.add_done(12);
        report.progress(&meter, at(2));
        let progress = report.0.progress.unwrap();
        assert_eq!((progress.done_bytes, progress.total_bytes), (12, Some(12)));
    }
}
