//! What came of a schedule's runs: last success, next run, misses in a row, and whose turn verification is.
use culvert_resources::{
    Backup, BackupPhase, BackupSchedule, Concurrency, ConditionType, Failure, Method, Verified, Why,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::retention::{Candidate, Outcome};
use crate::jobs::causes::{why, why_of};
use crate::reconcile::{Conditions, Verdict};
use crate::timetable::Timetable;

/// Time after a due time in which a run may still begin before it counts as missed, besides its jitter.
const GRACE: SignedDuration = SignedDuration::from_mins(10);
/// Due times that are looked through.
const LOOKED_THROUGH: usize = 500;

/// A backup of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    name: String,
    made: Timestamp,
    ended: Option<Timestamp>,
    outcome: Outcome,
    failure: Option<Failure>,
}

impl Run {
    /// What became of a backup.
    pub(crate) fn of(backup: &Backup) -> Self {
        let status = backup.status.clone().unwrap_or_default();
        Self {
            name: backup.name_any(),
            made: made(backup),
            ended: status.ended_at.map(|at| at.0),
            outcome: outcome(backup),
            failure: status.verified.as_ref().filter(|verified| !verified.ok).map(broken).or(status.failure),
        }
    }
}

/// What came of a schedule's runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct History {
    /// When one last succeeded.
    pub(crate) last_success: Option<Timestamp>,
    /// When the next is due; nothing while it is suspended.
    pub(crate) next: Option<Timestamp>,
    /// Runs since the last success that failed or did not begin.
    pub(crate) misses: i64,
    /// Backups that exist.
    pub(crate) kept: i64,
    suspended: bool,
    running: bool,
    forbids: bool,
    last_failure: Option<Why>,
}

impl History {
    /// From the schedule, its runs, and the cause why the newest Job of its CronJob failed.
    pub(crate) fn new(
        schedule: &BackupSchedule,
        table: Option<&Timetable>,
        runs: &[Run],
        job: Option<Why>,
        now: Timestamp,
    ) -> Self {
        let suspended = schedule.spec.suspended;
        let table = table.filter(|_| !suspended);
        let good = runs.iter().filter(|run| matches!(run.outcome, Outcome::Whole | Outcome::Broken));
        let last_success = good.clone().filter_map(|run| run.ended).max();
        let newest = runs.iter().max_by_key(|run| run.made);
        let failed = newest.filter(|run| matches!(run.outcome, Outcome::Failed | Outcome::Broken));
        Self {
            last_success,
            next: table.and_then(|table| table.next(now)),
            misses: table.map_or(0, |table| misses(schedule, table, runs, last_success, now)),
            kept: i64::try_from(good.count()).unwrap_or(i64::MAX),
            suspended,
            running: runs.iter().any(|run| run.outcome == Outcome::Open),
            forbids: schedule.spec.concurrency == Concurrency::Forbid,
            last_failure: failed.and_then(|run| run.failure.as_ref()).map(why_of).or(job),
        }
    }

    /// Whether a run that was asked for has to wait for the one before.
    pub(crate) fn must_wait(&self) -> bool {
        self.running && self.forbids
    }

    /// Why it is not healthy.
    pub(crate) fn why(&self) -> Option<Why> {
        if let Some(cause) = &self.last_failure {
            return Some(cause.clone());
        }
        let times = if self.misses == 1 { "run" } else { "runs" };
        (self.misses > 0).then(|| {
            let message = format!("{} {times} in a row did not begin.", self.misses);
            why("missed", message, "See whether the CronJob exists, and whether its Jobs may start pods.")
        })
    }

    /// What is to be said.
    pub(crate) fn say(&self, cause: Option<&Why>, conditions: &mut Conditions<'_>) {
        let kind = ConditionType::BackupHealthy;
        match (cause, self.last_success) {
            _ if self.suspended => conditions.say(kind, Verdict::Unknown, "Suspended", "it is suspended"),
            (Some(cause), _) if self.misses > 0 || self.last_failure.is_some() => conditions.not(kind, cause),
            (Some(cause), _) => conditions.say(kind, Verdict::Unknown, "Waiting", cause.message.clone()),
            (None, Some(at)) => conditions.say(kind, true, "Succeeded", format!("last at {at}")),
            (None, None) => conditions.say(kind, Verdict::Unknown, "NoneYet", "no run was due yet"),
        };
    }
}

/// What a verification found, as a failure.
fn broken(verified: &Verified) -> Failure {
    Failure {
        step: "verify".to_owned(),
        code: "verification_failed".to_owned(),
        message: format!("The newest backup could not be restored: {}", verified.message),
        hint: "Look at what it names, and make a new backup.".to_owned(),
    }
}

/// Due times since the last success that were missed or failed.
fn misses(
    schedule: &BackupSchedule,
    table: &Timetable,
    runs: &[Run],
    last_success: Option<Timestamp>,
    now: Timestamp,
) -> i64 {
    let made = schedule.metadata.creation_timestamp.as_ref().map(|made| made.0);
    let Some(since) = last_success.max(made) else { return 0 };
    let patience = GRACE + SignedDuration::from_secs(schedule.spec.jitter_seconds);
    let Ok(until) = now.checked_sub(patience) else { return 0 };
    let name = schedule.name_any();
    let missed = table.due(since, until, LOOKED_THROUGH).into_iter().filter(|due| {
        let run = format!("{name}-{}", due.as_second() / 60);
        !runs.iter().any(|one| one.name == run && one.outcome == Outcome::Open)
    });
    i64::try_from(missed.count()).unwrap_or(i64::MAX)
}

/// A backup as retention sees it. `read`: whether a restore reads it now.
pub(crate) fn candidate(backup: &Backup, read: bool) -> Candidate {
    let status = backup.status.clone().unwrap_or_default();
    let at = status.ended_at.as_ref().map_or_else(|| made(backup), |at| at.0);
    let window = status.recoverable.as_ref().is_some_and(|range| range.until.0 > range.from.0);
    let verifying = backup.spec.verify && status.verified.is_none() && outcome(backup) == Outcome::Whole;
    Candidate {
        name: backup.name_any(),
        at,
        outcome: outcome(backup),
        archived: backup.spec.method == Method::Physical && window,
        in_use: read || verifying,
    }
}

/// The backup that is to be verified now: the newest whole one, when so many have come since the last that was.
pub(crate) fn due_for_verification(every: i64, backups: &[Backup]) -> Option<&Backup> {
    let every = usize::try_from(every).ok().filter(|every| *every > 0)?;
    let mut whole: Vec<&Backup> =
        backups.iter().filter(|one| matches!(outcome(one), Outcome::Whole | Outcome::Broken)).collect();
    whole.sort_by_key(|backup| std::cmp::Reverse(made(backup)));
    let since = whole.iter().take_while(|backup| !backup.spec.verify).count();
    let newest = whole.first().filter(|newest| newest.metadata.deletion_timestamp.is_none())?;
    (since >= every).then_some(*newest)
}

fn outcome(backup: &Backup) -> Outcome {
    let status = backup.status.as_ref();
    match status.and_then(|status| status.phase) {
        Some(BackupPhase::Complete) => {
            let broken =
                status.and_then(|status| status.verified.as_ref()).is_some_and(|verified| !verified.ok);
            if broken { Outcome::Broken } else { Outcome::Whole }
        }
        Some(BackupPhase::Failed | BackupPhase::Cancelled) => Outcome::Failed,
        None | Some(BackupPhase::Pending | BackupPhase::Running | BackupPhase::Deleting) => Outcome::Open,
    }
}

fn made(backup: &Backup) -> Timestamp {
    backup.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |made| made.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(suspended: bool) -> BackupSchedule {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupSchedule",
            "metadata": {"name": "h", "namespace": "shop", "creationTimestamp": "2026-05-01T00:30:00Z"},
            "spec": {"service": "orders", "target": "away", "cron": "0 * * * *", "suspended": suspended},
        }))
        .unwrap()
    }

    fn backup(made: &str, status: Value) -> Backup {
        let minute = at(made).as_second() / 60;
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": format!("h-{minute}"), "namespace": "shop", "creationTimestamp": made},
            "spec": {"service": "orders", "target": "away", "schedule": "h", "trigger": "schedule"},
            "status": status,
        }))
        .unwrap()
    }

    fn good(made: &str) -> Backup {
        backup(made, json!({"phase": "Complete", "attempt": 1, "endedAt": made}))
    }

    fn history(backups: &[Backup], now: &str) -> History {
        let table = Timetable::parse("0 * * * *", "UTC").unwrap();
        let runs: Vec<Run> = backups.iter().map(Run::of).collect();
        History::new(&schedule(false), Some(&table), &runs, None, at(now))
    }

    #[test]
    fn a_young_schedule_has_missed_nothing() {
        let young = history(&[], "2026-05-01T00:59:00Z");
        assert_eq!((young.misses, young.why()), (0, None));
        assert_eq!(young.next, Some(at("2026-05-01T01:00:00Z")));
    }

    #[test]
    fn what_did_not_begin_counts_after_its_grace() {
        assert_eq!(history(&[], "2026-05-01T01:09:00Z").misses, 0);
        let late = history(&[], "2026-05-01T03:11:00Z");
        assert_eq!((late.misses, late.why().unwrap().code.as_str()), (3, "missed"));
    }

    #[test]
    fn what_failed_counts_until_the_next_success() {
        let failure = json!({"step": "s", "code": "unreachable", "message": "m", "hint": ""});
        let mut all = vec![
            good("2026-05-01T01:00:00Z"),
            backup("2026-05-01T02:00:00Z", json!({"phase": "Failed", "attempt": 3, "failure": failure})),
        ];
        let failing = history(&all, "2026-05-01T02:30:00Z");
        assert_eq!((failing.misses, failing.why().unwrap().code.as_str()), (1, "unreachable"));
        all.push(good("2026-05-01T03:00:00Z"));
        let healed = history(&all, "2026-05-01T03:30:00Z");
        assert_eq!((healed.misses, healed.why(), healed.kept), (0, None, 2));
        assert_eq!(healed.last_success, Some(at("2026-05-01T03:00:00Z")));
    }

    #[test]
    fn one_that_runs_long_is_not_missed() {
        let all = [backup("2026-05-01T01:00:00Z", json!({"phase": "Running", "attempt": 1}))];
        let long = history(&all, "2026-05-01T01:50:00Z");
        assert_eq!(long.misses, 0);
        assert!(long.must_wait());
    }

    #[test]
    fn a_suspended_one_misses_nothing_and_has_no_next() {
        let table = Timetable::parse("0 * * * *", "UTC").unwrap();
        let asleep = History::new(&schedule(true), Some(&table), &[], None, at("2026-05-03T00:00:00Z"));
        assert_eq!((asleep.misses, asleep.next), (0, None));
    }

    #[test]
    fn every_nth_is_verified_and_failures_do_not_count() {
        let mut all = vec![good("2026-05-01T01:00:00Z"), good("2026-05-01T02:00:00Z")];
        assert_eq!(due_for_verification(3, &all), None);
        all.push(backup("2026-05-01T03:00:00Z", json!({"phase": "Failed", "attempt": 3})));
        assert_eq!(due_for_verification(3, &all), None);
        all.push(good("2026-05-01T04:00:00Z"));
        let due = due_for_verification(3, &all).map(|backup| backup.name_any());
        assert_eq!(due, Some(all[3].name_any()));
        all[3].spec.verify = true;
        assert_eq!(due_for_verification(3, &all), None);
        assert_eq!(due_for_verification(0, &all), None);
    }

    #[test]
    fn a_backup_that_was_found_broken_is_no_success_for_retention() {
        let broken = json!({"phase": "Complete", "attempt": 1, "verified": {"at": "2026-05-01T02:00:00Z", "ok": false}});
        assert_eq!(candidate(&backup("2026-05-01T01:00:00Z", broken), false).outcome, Outcome::Broken);
        let mut verifying = good("2026-05-01T01:00:00Z");
        verifying.spec.verify = true;
        assert!(candidate(&verifying, false).in_use);
        assert!(candidate(&good("2026-05-01T01:00:00Z"), true).in_use);
    }

    #[test]
    fn a_newest_backup_that_was_found_broken_is_not_healthy() {
        let verified = json!({"at": "2026-05-01T01:10:00Z", "ok": false, "message": "no answer"});
        let status = json!({"phase": "Complete", "attempt": 1, "endedAt": "2026-05-01T01:05:00Z", "verified": verified});
        let history = history(&[backup("2026-05-01T01:00:00Z", status)], "2026-05-01T01:30:00Z");
        assert_eq!(history.why().unwrap().code, "verification_failed");
    }
}
