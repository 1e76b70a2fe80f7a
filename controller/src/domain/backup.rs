//! Backups and restores: how a caller names them, and what their objects' status means for
//! whoever waits. Pure rules.
//!
//! The control plane keeps no record of its own of either: what the cluster has is what there
//! is, so a backup that a CronJob made while the tunnel was down is there once, like any other.

use std::str::FromStr;

use culvert_resources::{BackupPhase, BackupSpec, BackupStatus, RestorePhase, RestoreStatus, Why};
use serde_json::Value;

use super::operation::{NoSuchWord, Progress, Went};
use super::{BackupId, Failure, RestoreId, WorkName};

/// A backup as a caller names it.
pub type BackupRef = WorkRef<BackupId>;
/// A restore as a caller names it.
pub type RestoreRef = WorkRef<RestoreId>;

/// A backup or restore as a caller names it: by id or by name. A name has no underscore and an
/// id has one, so a text is never both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WorkRef<I> {
    /// By id.
    Id(I),
    /// By name; refused when there is more than one of it.
    Name(WorkName),
}

/// A text that can name no backup and no restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an id nor a name")]
pub struct NotARef;

impl<I: FromStr> FromStr for WorkRef<I> {
    type Err = NotARef;

    fn from_str(text: &str) -> Result<Self, NotARef> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|_| NotARef)
    }
}

/// Where a backup or a restore is in its life, as a list is filtered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupState {
    /// Waits.
    Pending,
    /// Runs.
    Running,
    /// Ended well.
    Complete,
    /// Ended badly.
    Failed,
    /// Was cancelled.
    Cancelled,
    /// Is being deleted.
    Deleting,
}

impl BackupState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Complete, Self::Failed, Self::Cancelled, Self::Deleting];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Deleting => "deleting",
        }
    }

    /// The state that an object's status tells; one that tells none waits.
    #[must_use]
    pub fn of(status: &Value) -> Self {
        let phase = status.get("phase").and_then(Value::as_str).unwrap_or_default();
        phase.to_ascii_lowercase().parse().unwrap_or(Self::Pending)
    }
}

impl FromStr for BackupState {
    type Err = NoSuchWord;

    fn from_str(text: &str) -> Result<Self, NoSuchWord> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(NoSuchWord)
    }
}

/// What the step `step` of a backup's operation finds in its object.
#[must_use]
pub fn backup_went(step: &str, spec: &BackupSpec, status: &BackupStatus) -> Went {
    match (status.phase, step) {
        (Some(BackupPhase::Failed), _) => {
            let told = failure(status.failure.as_ref(), status.why.as_ref());
            Went::Refused(told.unwrap_or_else(|| silent("backup_failed", "the backup failed")))
        }
        (Some(BackupPhase::Cancelled), _) => Went::Refused(silent("cancelled", "the backup was cancelled")),
        (Some(BackupPhase::Deleting), _) => Went::Refused(silent("deleted", "the backup is being deleted")),
        (Some(BackupPhase::Running), "started") => Went::Done(format!("attempt {}", status.attempt)),
        (Some(BackupPhase::Complete), "started") => Went::Done("it has ended already".to_owned()),
        (Some(BackupPhase::Complete), "complete") => Went::Done(stored(status)),
        (Some(BackupPhase::Complete), "verified") => verified(spec, status),
        _ => Went::Waiting(waits_for(
            status.why.as_ref(),
            status.progress.as_ref().map(|progress| progress.step.as_str()),
        )),
    }
}

fn stored(status: &BackupStatus) -> String {
    let path = status.path.as_deref().unwrap_or_default();
    match status.stored_bytes {
        Some(bytes) => format!("{bytes} bytes in {path}"),
        None => path.to_owned(),
    }
}

fn verified(spec: &BackupSpec, status: &BackupStatus) -> Went {
    match &status.verified {
        _ if !spec.verify => Went::Skipped("it was not asked for".to_owned()),
        Some(trial) if trial.ok => Went::Done(format!("it answered after {} s", trial.seconds)),
        Some(trial) => {
            let next = "look at the message, and do not rely on this backup";
            Went::Refused(Failure::new("verification_failed", trial.message.clone(), next))
        }
        None => Went::Waiting(waits_for(status.why.as_ref(), Some("being restored on trial"))),
    }
}

/// What the step `step` of a restore's operation finds in its object.
#[must_use]
pub fn restore_went(step: &str, status: &RestoreStatus) -> Went {
    use culvert_resources::StepState as Step;
    match status.phase {
        Some(RestorePhase::Failed) => {
            let told = failure(status.failure.as_ref(), status.why.as_ref());
            return Went::Refused(told.unwrap_or_else(|| silent("restore_failed", "the restore failed")));
        }
        Some(RestorePhase::Cancelled) => {
            return Went::Refused(silent("cancelled", "the restore was cancelled"));
        }
        _ => {}
    }
    let complete = status.phase == Some(RestorePhase::Complete);
    let told = status.steps.iter().find(|told| told.name == step);
    match told.map(|told| (told.state, told.message.clone())) {
        Some((Step::Done, message)) => Went::Done(message),
        Some((Step::Skipped, message)) => Went::Skipped(message),
        _ if complete => Went::Done(String::new()),
        other => {
            let message = other.map(|(_, message)| message).filter(|message| !message.is_empty());
            let progress = status.progress.as_ref().map(|progress| progress.step.as_str());
            Went::Waiting(waits_for(status.why.as_ref(), message.as_deref().or(progress)))
        }
    }
}

/// How far the object says it is.
#[must_use]
pub fn progress(told: Option<&culvert_resources::Progress>) -> Option<Progress> {
    let told = told?;
    let done_bytes = u64::try_from(told.done_bytes).ok()?;
    Some(Progress { done_bytes, total_bytes: told.total_bytes.and_then(|total| u64::try_from(total).ok()) })
}

/// Why it failed: what the runner said, else the deepest cause.
fn failure(told: Option<&culvert_resources::Failure>, why: Option<&Why>) -> Option<Failure> {
    match (told, why) {
        (Some(told), _) => Some(Failure::new(told.code.clone(), told.message.clone(), told.hint.clone())),
        (None, Some(why)) => Some(Failure::new(why.code.clone(), why.message.clone(), why.next.clone())),
        (None, None) => None,
    }
}

fn silent(code: &str, message: &str) -> Failure {
    Failure::new(code, message, "ask for a new one")
}

fn waits_for(why: Option<&Why>, doing: Option<&str>) -> String {
    match why {
        Some(why) if why.next.is_empty() => why.message.clone(),
        Some(why) => format!("{} {}", why.message, why.next),
        None => doing.filter(|doing| !doing.is_empty()).unwrap_or("the operator is at work").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn backup(step: &str, verify: bool, status: Value) -> Went {
        let spec = json!({"service": "orders", "target": "vault", "verify": verify});
        let spec: BackupSpec = serde_json::from_value(spec).unwrap();
        backup_went(step, &spec, &serde_json::from_value(status).unwrap())
    }

    fn restore(step: &str, status: Value) -> Went {
        restore_went(step, &serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = BackupId::generate();
        assert_eq!(id.to_string().parse(), Ok(BackupRef::Id(id)));
        assert!(matches!("orders-1764037000".parse(), Ok(BackupRef::Name(_))));
        let long = "x".repeat(53);
        for bad in ["", "bkp_x", "../x", "Orders", long.as_str()] {
            assert!(bad.parse::<BackupRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_backup_goes_from_step_to_step() {
        assert!(matches!(backup("started", false, json!({})), Went::Waiting(_)));
        assert!(matches!(backup("started", false, json!({"phase": "Running"})), Went::Done(_)));
        assert!(matches!(backup("complete", false, json!({"phase": "Running"})), Went::Waiting(_)));
        let whole = json!({"phase": "Complete", "storedBytes": 7, "path": "p"});
        assert_eq!(backup("complete", false, whole.clone()), Went::Done("7 bytes in p".into()));
        assert!(matches!(backup("verified", false, whole.clone()), Went::Skipped(_)));
        assert!(matches!(backup("verified", true, whole.clone()), Went::Waiting(_)));
        let mut tried = whole;
        tried["verified"] = json!({"at": "2026-01-01T00:00:00Z", "ok": true, "seconds": 9});
        assert_eq!(backup("verified", true, tried.clone()), Went::Done("it answered after 9 s".into()));
        tried["verified"]["ok"] = json!(false);
        assert!(matches!(backup("verified", true, tried), Went::Refused(_)));
    }

    #[test]
    fn what_failed_says_why() {
        let why = json!({"code": "no_space", "message": "the bucket is full", "who": "storage-owner", "next": "make room"});
        let waiting = json!({"phase": "Pending", "why": why});
        assert_eq!(backup("started", false, waiting), Went::Waiting("the bucket is full make room".into()));
        let failed = json!({"phase": "Failed", "why": why});
        let Went::Refused(failure) = backup("complete", false, failed) else { panic!("not refused") };
        assert_eq!((failure.code.as_str(), failure.next.as_str()), ("no_space", "make room"));
        let failed = json!({"phase": "Failed", "failure": {"step": "copy", "code": "denied", "message": "no", "hint": "ask"}});
        let Went::Refused(failure) = restore("fetch", failed) else { panic!("not refused") };
        assert_eq!((failure.code.as_str(), failure.next.as_str()), ("denied", "ask"));
        for phase in ["Failed", "Cancelled"] {
            assert!(matches!(restore("fetch", json!({"phase": phase})), Went::Refused(_)), "{phase}");
        }
    }

    #[test]
    fn a_restore_follows_the_steps_of_its_object() {
        let status = json!({"phase": "Running", "steps": [
            {"name": "check-manifest", "state": "Done", "message": "17.2"},
            {"name": "prior-backup", "state": "Skipped"},
            {"name": "fetch", "state": "Running", "message": "half of it"}]});
        assert_eq!(restore("check-manifest", status.clone()), Went::Done("17.2".into()));
        assert!(matches!(restore("prior-backup", status.clone()), Went::Skipped(_)));
        assert_eq!(restore("fetch", status.clone()), Went::Waiting("half of it".into()));
        assert!(matches!(restore("recover", status), Went::Waiting(_)));
        assert!(matches!(restore("recover", json!({"phase": "Complete"})), Went::Done(_)));
    }

    #[test]
    fn the_state_is_the_phase() {
        assert_eq!(BackupState::of(&json!({"phase": "Complete"})), BackupState::Complete);
        assert_eq!(BackupState::of(&json!({"phase": ["no"]})), BackupState::Pending);
        assert_eq!(BackupState::of(&Value::Null), BackupState::Pending);
    }

    #[test]
    fn negative_bytes_are_no_progress() {
        let told = |done| culvert_resources::Progress {
            done_bytes: done,
            total_bytes: Some(9),
            ..Default::default()
        };
        assert_eq!(progress(Some(&told(3))).map(|p| (p.done_bytes, p.total_bytes)), Some((3, Some(9))));
        assert_eq!(progress(Some(&told(-3))), None);
    }
}
