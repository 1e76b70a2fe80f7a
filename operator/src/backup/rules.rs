//! What is to be done about a backup, and what is to be said of it: from what was seen, without effect.
//!
//! While its Job runs, the runner writes the status; the operator adds only what the runner cannot know: that the Job
//! does not start, that it died without a word, that it was cancelled.
use culvert_resources::{Backup, BackupPhase, Failure, Verified, Why, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::jobs::causes::{failure_of, why};
use crate::jobs::outcome::Outcome;
use crate::reconcile::Next;

/// Time that the end of a Job and the runner's report of it may lie apart.
const REPORT: SignedDuration = SignedDuration::from_secs(60);
/// Time beyond the deadline in which Kubernetes ends the Job by itself.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// What was seen of a backup that is not being deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen<'a> {
    /// The backup.
    pub(crate) backup: &'a Backup,
    /// Its Job.
    pub(crate) job: Outcome,
    /// What a Job lacks to be begun.
    pub(crate) lacks: Option<Why>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing.
    Nothing,
    /// See that the Job exists.
    Start,
    /// End the Job.
    Stop,
    /// Delete the object: its time has come.
    Expire,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Report {
    /// The phase, where it is the operator's to say.
    pub(crate) phase: Option<BackupPhase>,
    /// Attempts that had begun.
    pub(crate) attempt: Option<i64>,
    /// When it ended.
    pub(crate) ended_at: Option<Time>,
    /// Why it failed.
    pub(crate) failure: Option<Failure>,
    /// What its verification found, when that has ended now.
    pub(crate) verified: Option<Verified>,
    /// Why it does not go on.
    pub(crate) why: Option<Why>,
}

/// What is to be done and said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub(crate) act: Act,
    pub(crate) report: Report,
    pub(crate) next: Next,
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Decision {
    match seen.phase() {
        Some(BackupPhase::Complete) => over(seen, Report::default()),
        Some(BackupPhase::Failed | BackupPhase::Cancelled) if !seen.job.active() => {
            over(seen, Report::kept(seen.backup))
        }
        _ if seen.cancelled() => cancel(seen),
        _ => go_on(seen),
    }
}

impl Seen<'_> {
    fn phase(&self) -> Option<BackupPhase> {
        self.backup.status.as_ref()?.phase
    }

    fn cancelled(&self) -> bool {
        self.backup.annotations().contains_key(meta::CANCEL)
    }

    fn attempts_begun(&self) -> i64 {
        self.backup.status.as_ref().map_or(0, |status| status.attempt)
    }

    fn late(&self) -> bool {
        let deadline = SignedDuration::from_secs(self.backup.spec.deadline_seconds) + SLACK;
        let made = self.backup.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| self.now.duration_since(made.0) > deadline)
    }

    /// The phase as long as the runner has said nothing.
    fn waiting(&self, why: Option<Why>) -> Report {
        let quiet = matches!(self.phase(), None | Some(BackupPhase::Pending));
        Report { phase: quiet.then_some(BackupPhase::Pending), why, ..Report::default() }
    }

    fn failed(&self, attempts: i64, failure: &Failure) -> Report {
        let told = self.backup.status.as_ref().and_then(|status| status.failure.clone());
        Report {
            phase: Some(BackupPhase::Failed),
            attempt: Some(attempts.max(self.attempts_begun())),
            ended_at: Some(Time(self.now)),
            failure: Some(told.unwrap_or_else(|| failure.clone())),
            ..Report::default()
        }
    }
}

impl Report {
    /// What stands there already: whoever leaves it out of a later report would delete it.
    pub(crate) fn kept(backup: &Backup) -> Self {
        let Some(status) = &backup.status else { return Self::default() };
        Self {
            phase: status.phase,
            attempt: Some(status.attempt),
            ended_at: status.ended_at.clone(),
            failure: status.failure.clone(),
            ..Self::default()
        }
    }
}

/// It has ended: only its expiry remains.
fn over(seen: &Seen<'_>, report: Report) -> Decision {
    let left = seen.backup.spec.expires_at.as_ref().map(|at| at.0.duration_since(seen.now));
    match left {
        Some(left) if !left.is_positive() => Decision { act: Act::Expire, report, next: Next::OnChange },
        Some(left) => {
            let seconds = u64::try_from(left.as_secs()).unwrap_or(0);
            Decision { act: Act::Nothing, report, next: Next::seconds(seconds.saturating_add(1)) }
        }
        None => Decision { act: Act::Nothing, report, next: Next::OnChange },
    }
}

fn cancel(seen: &Seen<'_>) -> Decision {
    if seen.job.active() {
        let cause = why("cancelling", "It is being cancelled.", "Wait until its Job has ended.");
        return Decision { act: Act::Stop, report: seen.waiting(Some(cause)), next: Next::seconds(2) };
    }
    let report = Report {
        phase: Some(BackupPhase::Cancelled),
        attempt: Some(seen.attempts_begun()),
        ended_at: Some(Time(seen.now)),
        ..Report::default()
    };
    Decision { act: Act::Nothing, report, next: Next::OnChange }
}

fn go_on(seen: &Seen<'_>) -> Decision {
    let say = |report, seconds| Decision { act: Act::Nothing, report, next: Next::seconds(seconds) };
    match &seen.job {
        Outcome::Absent => begin(seen),
        Outcome::Active { why, .. } if seen.late() => {
            Decision { act: Act::Stop, report: seen.waiting(why.clone()), next: Next::seconds(2) }
        }
        // Again, should the operator have stopped between the Job and its file.
        Outcome::Active { why, .. } => {
            Decision { act: Act::Start, report: seen.waiting(why.clone()), next: Next::seconds(15) }
        }
        Outcome::Succeeded { at, .. } if at.is_some_and(|at| seen.now.duration_since(at) < REPORT) => {
            say(seen.waiting(None), 5)
        }
        Outcome::Succeeded { .. } => say(seen.failed(0, &no_report()), 1),
        Outcome::Failed { attempts, failure, .. } => say(seen.failed(*attempts, failure), 1),
    }
}

/// There is no Job: not yet, or not any more.
fn begin(seen: &Seen<'_>) -> Decision {
    let fail = |cause: &Why| {
        let report = seen.failed(0, &failure_of(cause, "start"));
        Decision { act: Act::Nothing, report, next: Next::seconds(1) }
    };
    if seen.attempts_begun() >= seen.backup.spec.attempts {
        let next = "Make a new backup; if nobody deleted the Job, look at what removes Jobs here.";
        return fail(&why("job_vanished", "Its Job was deleted while it ran.", next));
    }
    match &seen.lacks {
        Some(lacks) if seen.late() => fail(lacks),
        None if seen.late() => {
            let seconds = seen.backup.spec.deadline_seconds;
            fail(&why("deadline", format!("It did not end within {seconds} s."), "Raise the deadline."))
        }
        Some(lacks) => {
            Decision { act: Act::Nothing, report: seen.waiting(Some(lacks.clone())), next: Next::seconds(15) }
        }
        None => Decision { act: Act::Start, report: seen.waiting(None), next: Next::seconds(15) },
    }
}

fn no_report() -> Failure {
    let cause = why(
        "no_report",
        "Its Job ended well and did not report what it made.",
        "See whether the Job's account may write the status of backups; make a new backup.",
    );
    failure_of(&cause, "report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MADE: &str = "2026-05-01T12:00:00Z";

    fn backup(status: Value) -> Backup {
        let mut backup: Backup = serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "shop", "creationTimestamp": MADE},
            "spec": {"service": "orders", "target": "away", "deadlineSeconds": 3600},
        }))
        .unwrap();
        backup.status = serde_json::from_value(status).unwrap();
        backup
    }

    fn minutes(later: i64) -> Timestamp {
        let made: Timestamp = MADE.parse().unwrap();
        made + SignedDuration::from_mins(later)
    }

    fn seen(backup: &Backup, job: Outcome, later: i64) -> Seen<'_> {
        Seen { backup, job, lacks: None, now: minutes(later) }
    }

    fn active() -> Outcome {
        Outcome::Active { attempts: 1, why: None }
    }

    fn failed() -> Outcome {
        let failure = failure_of(&why("out_of_memory", "killed", "look"), "run");
        Outcome::Failed { attempts: 3, failure, at: None }
    }

    #[test]
    fn a_new_one_gets_its_job() {
        let new = backup(Value::Null);
        let decision = decide(&seen(&new, Outcome::Absent, 0));
        assert_eq!((decision.act, decision.report.phase), (Act::Start, Some(BackupPhase::Pending)));
    }

    #[test]
    fn what_is_lacking_is_said_and_fails_it_only_at_the_deadline() {
        let new = backup(Value::Null);
        let mut waiting = seen(&new, Outcome::Absent, 10);
        waiting.lacks = Some(why("no_service", "There is no orders.", "Make it."));
        let decision = decide(&waiting);
        assert_eq!((decision.act, decision.report.phase), (Act::Nothing, Some(BackupPhase::Pending)));
        assert_eq!(decision.report.why.unwrap().code, "no_service");
        waiting.now = minutes(71);
        let decision = decide(&waiting);
        assert_eq!(decision.report.phase, Some(BackupPhase::Failed));
        assert_eq!(decision.report.failure.unwrap().code, "no_service");
    }

    #[test]
    fn while_the_runner_speaks_the_phase_is_its_own() {
        let running = backup(json!({"phase": "Running", "attempt": 1}));
        assert_eq!(decide(&seen(&running, active(), 5)).report.phase, None);
    }

    #[test]
    fn one_that_died_without_a_word_has_failed_with_its_cause() {
        let running = backup(json!({"phase": "Running", "attempt": 1}));
        let report = decide(&seen(&running, failed(), 5)).report;
        assert_eq!((report.phase, report.attempt), (Some(BackupPhase::Failed), Some(3)));
        assert_eq!(report.failure.unwrap().code, "out_of_memory");
    }

    #[test]
    fn what_the_runner_said_of_its_failure_stays() {
        let failure = json!({"step": "upload", "code": "no_bucket", "message": "m", "hint": "h"});
        let told = backup(json!({"phase": "Running", "attempt": 2, "failure": failure}));
        assert_eq!(decide(&seen(&told, failed(), 5)).report.failure.unwrap().code, "no_bucket");
    }

    #[test]
    fn a_failed_attempt_that_is_tried_again_is_no_end() {
        let between = backup(json!({"phase": "Failed", "attempt": 1}));
        let decision = decide(&seen(&between, active(), 5));
        assert_eq!((decision.act, decision.report.phase), (Act::Start, None));
        let over = decide(&seen(&between, failed(), 5));
        assert_eq!((over.act, over.report.phase), (Act::Nothing, Some(BackupPhase::Failed)));
    }

    #[test]
    fn a_job_deleted_by_hand_is_made_again_while_attempts_are_left() {
        let first = backup(json!({"phase": "Running", "attempt": 1}));
        assert_eq!(decide(&seen(&first, Outcome::Absent, 5)).act, Act::Start);
        let last = backup(json!({"phase": "Running", "attempt": 3}));
        let report = decide(&seen(&last, Outcome::Absent, 5)).report;
        assert_eq!(report.failure.unwrap().code, "job_vanished");
    }

    #[test]
    fn a_success_without_a_report_is_none() {
        let running = backup(json!({"phase": "Running", "attempt": 1}));
        let done = |at| Outcome::Succeeded { message: None, at: Some(minutes(at)) };
        assert_eq!(decide(&seen(&running, done(5), 5)).report.phase, None);
        let report = decide(&seen(&running, done(5), 7)).report;
        assert_eq!(report.failure.unwrap().code, "no_report");
    }

    #[test]
    fn a_cancelled_one_ends_its_job_first() {
        let mut running = backup(json!({"phase": "Running", "attempt": 1}));
        running.metadata.annotations = Some([(meta::CANCEL.to_owned(), "yes".to_owned())].into());
        let decision = decide(&seen(&running, active(), 5));
        assert_eq!((decision.act, decision.report.phase), (Act::Stop, None));
        let decision = decide(&seen(&running, Outcome::Absent, 5));
        assert_eq!(decision.report.phase, Some(BackupPhase::Cancelled));
        let mut done = running.clone();
        done.status.as_mut().unwrap().phase = Some(BackupPhase::Complete);
        assert_eq!(decide(&seen(&done, Outcome::Absent, 5)).report.phase, None);
    }

    #[test]
    fn it_expires_when_its_time_has_come() {
        let mut done = backup(json!({"phase": "Complete", "attempt": 1}));
        done.spec.expires_at = Some(Time(minutes(60)));
        assert_eq!(decide(&seen(&done, Outcome::Absent, 59)).next, Next::seconds(61));
        assert_eq!(decide(&seen(&done, Outcome::Absent, 60)).act, Act::Expire);
        let mut running = backup(json!({"phase": "Running", "attempt": 1}));
        running.spec.expires_at = Some(Time(minutes(1)));
        assert_ne!(decide(&seen(&running, active(), 5)).act, Act::Expire);
    }

    #[test]
    fn an_end_that_was_said_is_said_again_the_same() {
        let running = backup(json!({"phase": "Running", "attempt": 1}));
        let first = decide(&seen(&running, failed(), 5)).report;
        let mut told = running.clone();
        let status = told.status.as_mut().unwrap();
        status.phase = first.phase;
        status.attempt = first.attempt.unwrap();
        status.ended_at.clone_from(&first.ended_at);
        status.failure.clone_from(&first.failure);
        assert_eq!(decide(&seen(&told, failed(), 30)).report, first);
    }
}
