//! What a service's backups say of it: the newest, the recoverable points, and whether both are good enough.
use culvert_resources::{Backup, BackupPhase, BackupPlan, LastBackup, RecoverableRange};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

/// The newest backup that succeeded.
pub(super) fn last(backups: &[Backup]) -> Option<LastBackup> {
    let ended = |backup: &&Backup| Some((backup.status.as_ref()?.ended_at.clone()?, (*backup).clone()));
    let complete = backups.iter().filter(|backup| phase(backup) == Some(BackupPhase::Complete));
    let (at, newest) = complete.filter_map(|backup| ended(&backup)).max_by_key(|(at, _)| at.0)?;
    let verified = newest.status.as_ref().and_then(|status| status.verified.as_ref()).is_some_and(|v| v.ok);
    Some(LastBackup { name: newest.name_any(), at, verified })
}

/// The newest one of all that ended, when it failed: its name and why.
pub(super) fn failed(backups: &[Backup]) -> Option<(String, String)> {
    let ended =
        backups.iter().filter_map(|backup| Some((backup.status.as_ref()?.ended_at.as_ref()?.0, backup)));
    let (_, newest) = ended.max_by_key(|(at, _)| *at)?;
    if phase(newest) != Some(BackupPhase::Failed) {
        return None;
    }
    let failure = newest.status.as_ref().and_then(|status| status.failure.as_ref());
    let message = failure.map_or_else(|| "it failed".to_owned(), |failure| failure.message.clone());
    Some((newest.name_any(), message))
}

fn phase(backup: &Backup) -> Option<BackupPhase> {
    backup.status.as_ref()?.phase
}

/// Points in time to which a restore is possible: from the oldest backup to the end of the archive, or of the newest
/// backup.
pub(super) fn recoverable(backups: &[Backup], archived_until: Option<&str>) -> Option<RecoverableRange> {
    let complete = backups.iter().filter(|backup| phase(backup) == Some(BackupPhase::Complete));
    let ranges: Vec<&RecoverableRange> =
        complete.filter_map(|backup| backup.status.as_ref()?.recoverable.as_ref()).collect();
    let from = ranges.iter().map(|range| range.from.0).min()?;
    let until = ranges.iter().map(|range| range.until.0).max()?;
    let archived: Option<Timestamp> = archived_until.and_then(|until| until.parse().ok());
    let until = archived.map_or(until, |archived| archived.max(until));
    Some(RecoverableRange { from: Time(from), until: Time(until) })
}

/// Whether the newest recoverable point is young enough; nothing when none was asked for.
pub(super) fn fresh(
    plan: Option<&BackupPlan>,
    recoverable: Option<&RecoverableRange>,
    now: Timestamp,
) -> Option<bool> {
    let objective = SignedDuration::from_secs(plan?.recovery_point_objective_seconds);
    Some(recoverable.is_some_and(|range| now.duration_since(range.until.0) <= objective))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(name: &str, phase: &str, minute: u32) -> Backup {
        let at = format!("2026-11-25T12:{minute:02}:00Z");
        let mut backup =
            Backup::new(name, serde_json::from_value(json!({"service": "orders", "target": "t"})).unwrap());
        backup.status = Some(serde_json::from_value(json!({"phase": phase, "endedAt": at,
            "recoverable": {"from": at, "until": at}, "failure": {"step": "s", "code": "c", "message": "no bucket"}})).unwrap());
        backup
    }

    #[test]
    fn the_newest_good_one_counts_and_the_newest_bad_one_is_told() {
        let all = [backup("a", "Complete", 1), backup("b", "Complete", 5), backup("c", "Failed", 9)];
        assert_eq!(last(&all).unwrap().name, "b");
        assert_eq!(failed(&all), Some(("c".to_owned(), "no bucket".to_owned())));
        assert_eq!(failed(&all[..2]), None);
    }

    #[test]
    fn the_archive_goes_on_after_the_newest_backup() {
        let all = [backup("a", "Complete", 1), backup("b", "Complete", 5)];
        let range = recoverable(&all, Some("2026-11-25T12:30:00Z")).unwrap();
        assert_eq!(range.until.0.to_string(), "2026-11-25T12:30:00Z");
        assert_eq!(
            recoverable(&[], Some("2026-11-25T12:30:00Z")),
            None,
            "an archive without a base is worth nothing"
        );
        let plan: BackupPlan =
            serde_json::from_value(json!({"target": "t", "recoveryPointObjectiveSeconds": 60})).unwrap();
        let at = |minute: u32| format!("2026-11-25T12:{minute:02}:30Z").parse().unwrap();
        assert_eq!(fresh(Some(&plan), Some(&range), at(30)), Some(true));
        assert_eq!(fresh(Some(&plan), Some(&range), at(32)), Some(false));
        assert_eq!(fresh(None, Some(&range), at(32)), None);
    }
}
