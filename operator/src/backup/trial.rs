//! The verification of a backup: what is to be done next, from what was seen.
//!
//! A backup is worth what comes back from it. So it is restored from its target alone, in a namespace that is made for it
//! and deleted afterwards, with new credentials, until a login and a write succeed; the time that took is the time that
//! a recovery takes. A target that is a volume of its namespace can only be read there, so there the trial is made beside
//! the service, under a name of its own.
use culvert_resources::{Backup, BackupPhase, Restore, RestorePhase, RestoreSpec, Verified, Why};
use culvert_resources::{RestoreOverrides, RestoreSource, Topology};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::jobs::causes::why;
use crate::jobs::names;

/// Trials that are made at the same time in a cluster: each is a database more.
pub(crate) const AT_ONCE: usize = 2;
/// Time beyond the backup's deadline after which a trial has failed, whatever it waits for.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// Where a trial is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A namespace made for it.
    Throwaway(String),
    /// The backup's own namespace.
    Beside(String),
}

impl Place {
    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Self::Throwaway(name) | Self::Beside(name) => name,
        }
    }
}

/// What was seen of a trial.
#[derive(Debug, Clone)]
pub(crate) struct Trial<'a> {
    pub(crate) backup: &'a Backup,
    /// Whether its place is there, and since when.
    pub(crate) begun: Option<Timestamp>,
    /// Whether anything of it is left.
    pub(crate) left: bool,
    /// Its restore.
    pub(crate) restore: Option<Restore>,
    /// Other trials in this cluster.
    pub(crate) others: usize,
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing is wanted.
    Nothing,
    /// Make the place.
    Begin,
    /// See that the copies and the restore exist.
    Fill,
    /// Wait.
    Wait(Option<Why>),
    /// Say what was found.
    Conclude(Verified),
    /// Remove everything.
    Tidy,
}

/// Decides.
pub(crate) fn next(trial: &Trial<'_>) -> Step {
    let status = trial.backup.status.clone().unwrap_or_default();
    if status.phase != Some(BackupPhase::Complete) || status.verified.is_some() || !trial.backup.spec.verify {
        return if trial.left { Step::Tidy } else { Step::Nothing };
    }
    let Some(begun) = trial.begun else {
        if trial.others >= AT_ONCE {
            let message = format!("{} other backups are being verified.", trial.others);
            return Step::Wait(Some(why("waiting", message, "Wait for their end.")));
        }
        return Step::Begin;
    };
    let limit = SignedDuration::from_secs(trial.backup.spec.deadline_seconds) + SLACK;
    match &trial.restore {
        Some(restore) => judge(trial, restore, begun, limit),
        None if trial.now.duration_since(begun) > limit => Step::Conclude(late(trial.now, limit, None)),
        None => Step::Fill,
    }
}

fn judge(trial: &Trial<'_>, restore: &Restore, begun: Timestamp, limit: SignedDuration) -> Step {
    let status = restore.status.clone().unwrap_or_default();
    match status.phase {
        Some(RestorePhase::Complete) => {
            let began = status.started_at.map_or(begun, |at| at.0);
            let ended = status.ended_at.map_or(trial.now, |at| at.0);
            let message = format!(
                "restored, logged in, written; reached {}",
                status.reached.unwrap_or_else(|| "its end".to_owned())
            );
            let seconds = ended.duration_since(began).as_secs().max(0);
            Step::Conclude(Verified { at: Time(trial.now), ok: true, seconds, message })
        }
        Some(RestorePhase::Failed | RestorePhase::Cancelled) => {
            let told =
                status.failure.map_or_else(|| "the restore failed".to_owned(), |failure| failure.message);
            Step::Conclude(Verified { at: Time(trial.now), ok: false, seconds: 0, message: told })
        }
        None | Some(RestorePhase::Pending | RestorePhase::Running) => {
            if trial.now.duration_since(begun) > limit {
                return Step::Conclude(late(trial.now, limit, status.why.as_ref()));
            }
            Step::Wait(status.why)
        }
    }
}

fn late(now: Timestamp, limit: SignedDuration, cause: Option<&Why>) -> Verified {
    let waited = cause.map(|why| format!("; it waited: {}", why.message)).unwrap_or_default();
    let message = format!("not restored within {} min{waited}", limit.as_mins());
    Verified { at: Time(now), ok: false, seconds: 0, message }
}

/// Name of the throwaway namespace.
pub(crate) fn namespace(backup: &Backup) -> String {
    format!("culvert-{}", name(backup))
}

/// Name of the restore, and of the service that it fills.
pub(crate) fn name(backup: &Backup) -> String {
    format!("verify-{}", names::digest(&backup.uid().unwrap_or_default()))
}

/// The restore: one instance, no backups of its own, the exact manifest that the backup wrote.
pub(crate) fn restore(backup: &Backup, place: &Place) -> Restore {
    let path = backup.status.as_ref().and_then(|status| status.path.clone());
    let overrides = RestoreOverrides {
        topology: Some(Topology { replicas: 1, synchronous: false }),
        ..RestoreOverrides::default()
    };
    let source = RestoreSource { backup: None, target: Some(backup.spec.target.clone()), path };
    let spec = RestoreSpec {
        service: name(backup),
        source,
        point_in_time: None,
        overrides: Some(overrides),
        in_place: None,
        deadline_seconds: backup.spec.deadline_seconds,
    };
    let mut restore = Restore::new(&name(backup), spec);
    restore.metadata.namespace = Some(place.namespace().to_owned());
    restore
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-05-01T12:00:00Z";

    fn backup(status: Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "shop", "uid": "u"},
            "spec": {"service": "orders", "target": "away", "verify": true, "deadlineSeconds": 600},
            "status": status,
        }))
        .unwrap()
    }

    fn complete() -> Backup {
        backup(json!({"phase": "Complete", "attempt": 1, "path": "services/x/backups/b"}))
    }

    fn trial(backup: &Backup) -> Trial<'_> {
        let now = NOW.parse().unwrap();
        Trial { backup, begun: None, left: false, restore: None, others: 0, now }
    }

    fn restored(backup: &Backup, status: Value) -> Option<Restore> {
        let mut restore = restore(backup, &Place::Throwaway("n".to_owned()));
        restore.status = serde_json::from_value(status).unwrap();
        Some(restore)
    }

    #[test]
    fn only_a_whole_backup_is_tried_and_only_when_asked() {
        let running = backup(json!({"phase": "Running", "attempt": 1}));
        assert_eq!(next(&trial(&running)), Step::Nothing);
        let mut unasked = complete();
        unasked.spec.verify = false;
        assert_eq!(next(&trial(&unasked)), Step::Nothing);
        assert_eq!(next(&trial(&complete())), Step::Begin);
    }

    #[test]
    fn trials_wait_for_each_other() {
        let one = complete();
        let mut busy = trial(&one);
        busy.others = AT_ONCE;
        assert!(matches!(next(&busy), Step::Wait(Some(_))));
        busy.begun = Some(busy.now);
        assert_eq!(next(&busy), Step::Fill, "one that has begun goes on");
    }

    #[test]
    fn a_success_tells_how_long_it_took() {
        let one = complete();
        let mut seen = trial(&one);
        seen.begun = Some(seen.now);
        let times = json!({"phase": "Complete", "startedAt": "2026-05-01T11:59:00Z", "endedAt": "2026-05-01T11:59:42Z"});
        seen.restore = restored(&one, times);
        let Step::Conclude(found) = next(&seen) else { panic!("it has ended") };
        assert_eq!((found.ok, found.seconds), (true, 42));
    }

    #[test]
    fn a_failure_and_a_trial_without_end_are_told() {
        let one = complete();
        let mut seen = trial(&one);
        seen.begun = Some(seen.now - SignedDuration::from_mins(5));
        let failure = json!({"step": "fetch", "code": "backup_damaged", "message": "damaged", "hint": ""});
        seen.restore = restored(&one, json!({"phase": "Failed", "failure": failure}));
        assert!(matches!(next(&seen), Step::Conclude(found) if !found.ok && found.message == "damaged"));
        seen.restore = restored(&one, json!({"phase": "Running"}));
        assert_eq!(next(&seen), Step::Wait(None));
        seen.begun = Some(seen.now - SignedDuration::from_mins(21));
        assert!(matches!(next(&seen), Step::Conclude(found) if !found.ok));
        seen.restore = None;
        assert!(matches!(next(&seen), Step::Conclude(found) if !found.ok));
    }

    #[test]
    fn what_is_left_goes_whatever_became_of_it() {
        let verified = json!({"at": NOW, "ok": true});
        let done = backup(json!({"phase": "Complete", "attempt": 1, "verified": verified}));
        let mut seen = trial(&done);
        assert_eq!(next(&seen), Step::Nothing);
        seen.left = true;
        assert_eq!(next(&seen), Step::Tidy);
    }

    #[test]
    fn it_restores_from_the_target_alone() {
        let restore = restore(&complete(), &Place::Throwaway("n".to_owned()));
        assert_eq!(restore.spec.source.backup, None);
        assert_eq!(restore.spec.source.path.as_deref(), Some("services/x/backups/b"));
        assert_eq!(restore.spec.overrides.unwrap().backup, None);
    }
}
