//! How a backup that is being deleted goes: what must happen before its finalizer may be removed.
//!
//! Nothing here waits for ever without a way out: in a namespace that is being deleted nothing can be started, so the
//! object goes and what lies in the target stays; a store that cannot be reached holds the object until it can
//! be, or until somebody sets the annotation `data.culvert.dev/abandon`. Either leaves an event.
use culvert_resources::{Backup, DeletionPolicy, Why, meta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::jobs::causes::{why, why_of};
use crate::jobs::outcome::Outcome;

/// Pause between two tries to delete what lies in the target.
const PAUSE: SignedDuration = SignedDuration::from_mins(2);

/// What was seen of a backup that is being deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaving<'a> {
    /// The backup.
    pub(crate) backup: &'a Backup,
    /// The Job that makes it.
    pub(crate) job: Outcome,
    /// The Job that deletes what lies in the target.
    pub(crate) prune: Outcome,
    /// Restores that read it now.
    pub(crate) readers: Vec<String>,
    /// Whether its namespace is being deleted.
    pub(crate) namespace_ends: bool,
    /// Whether its target exists.
    pub(crate) target: bool,
    /// Where it lies, if anything was ever written.
    pub(crate) path: Option<String>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// End the Job that makes it.
    Stop,
    /// See that the Job that deletes exists.
    Prune,
    /// Remove the Job that failed to delete, so that it is made again.
    Again(Why),
    /// Wait, for this reason.
    Wait(Why),
    /// Let the object go.
    Release {
        /// What to tell people, when something stays behind.
        note: Option<String>,
    },
}

/// Decides the next step.
pub(crate) fn next(seen: &Leaving<'_>) -> Step {
    if seen.namespace_ends {
        return leave(seen, "its namespace is being deleted");
    }
    if seen.job.active() {
        return Step::Stop;
    }
    if !seen.readers.is_empty() {
        let message = format!("It is being restored by {}.", seen.readers.join(", "));
        return Step::Wait(why("in_use", message, "Wait for the end of the restore, or cancel it."));
    }
    if seen.backup.annotations().contains_key(meta::ABANDON) {
        return leave(seen, "it was abandoned");
    }
    if seen.backup.spec.deletion_policy == DeletionPolicy::Retain || seen.path.is_none() {
        return Step::Release { note: None };
    }
    if !seen.target {
        return leave(seen, "its target is gone");
    }
    pruned(seen)
}

fn pruned(seen: &Leaving<'_>) -> Step {
    match &seen.prune {
        Outcome::Absent => Step::Prune,
        Outcome::Active { why: Some(cause), .. } => Step::Wait(cause.clone()),
        Outcome::Active { why: None, .. } => {
            Step::Wait(why("in_progress", "What lies in the target is being deleted.", "Wait."))
        }
        Outcome::Succeeded { .. } => Step::Release { note: None },
        Outcome::Failed { failure, at, .. } => {
            let cause = abandonable(why_of(failure));
            let rested = at.is_none_or(|at| seen.now.duration_since(at) >= PAUSE);
            if rested { Step::Again(cause) } else { Step::Wait(cause) }
        }
    }
}

/// Adds the way out.
fn abandonable(cause: Why) -> Why {
    let next = format!(
        "{} To let the object go and leave what lies in the target, set the annotation {}.",
        cause.next,
        meta::ABANDON
    );
    Why { next: next.trim_start().to_owned(), ..cause }
}

fn leave(seen: &Leaving<'_>, cause: &str) -> Step {
    let kept = seen.backup.spec.deletion_policy == DeletionPolicy::Retain;
    let path = seen.path.as_ref().filter(|_| !kept);
    let target = &seen.backup.spec.target;
    let note = path.map(|path| format!("{path} stays in the target {target}: {cause}"));
    Step::Release { note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::causes::failure_of;
    use serde_json::json;

    fn backup(policy: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "shop"},
            "spec": {"service": "orders", "target": "away", "deletionPolicy": policy},
        }))
        .unwrap()
    }

    fn leaving(backup: &Backup) -> Leaving<'_> {
        Leaving {
            backup,
            job: Outcome::Absent,
            prune: Outcome::Absent,
            readers: Vec::new(),
            namespace_ends: false,
            target: true,
            path: Some("services/x/backups/b".to_owned()),
            now: "2026-05-01T12:00:00Z".parse().unwrap(),
        }
    }

    fn unreachable(at: &str) -> Outcome {
        let failure = failure_of(&why("unreachable", "No answer.", "Look at the network."), "delete");
        Outcome::Failed { attempts: 3, failure, at: Some(at.parse().unwrap()) }
    }

    #[test]
    fn it_is_deleted_from_the_target_first() {
        let backup = backup("Delete");
        let mut seen = leaving(&backup);
        assert_eq!(next(&seen), Step::Prune);
        seen.prune = Outcome::Succeeded { message: None, at: None };
        assert_eq!(next(&seen), Step::Release { note: None });
    }

    #[test]
    fn what_shall_stay_stays_without_a_word() {
        let backup = backup("Retain");
        let mut seen = leaving(&backup);
        assert_eq!(next(&seen), Step::Release { note: None });
        seen.namespace_ends = true;
        assert_eq!(next(&seen), Step::Release { note: None });
    }

    #[test]
    fn a_store_that_is_away_holds_it_with_a_cause_and_a_way_out() {
        let mut backup = backup("Delete");
        let mut seen = leaving(&backup);
        seen.prune = unreachable("2026-05-01T11:59:30Z");
        let Step::Wait(cause) = next(&seen) else { panic!("it waits") };
        assert_eq!(cause.code, "unreachable");
        assert!(cause.next.contains(meta::ABANDON));
        seen.prune = unreachable("2026-05-01T11:58:00Z");
        assert!(matches!(next(&seen), Step::Again(_)));
        backup.metadata.annotations = Some([(meta::ABANDON.to_owned(), "yes".to_owned())].into());
        let mut seen = leaving(&backup);
        seen.prune = unreachable("2026-05-01T11:59:30Z");
        assert!(matches!(next(&seen), Step::Release { note: Some(_) }));
    }

    #[test]
    fn a_namespace_that_ends_is_never_held() {
        let backup = backup("Delete");
        let mut seen = leaving(&backup);
        seen.namespace_ends = true;
        seen.job = Outcome::Active { attempts: 1, why: None };
        seen.readers = vec!["Restore/r".to_owned()];
        let Step::Release { note: Some(note) } = next(&seen) else { panic!("it goes") };
        assert!(note.contains("services/x/backups/b stays in the target away"), "{note}");
    }

    #[test]
    fn its_job_ends_and_its_readers_finish_first() {
        let backup = backup("Delete");
        let mut seen = leaving(&backup);
        seen.job = Outcome::Active { attempts: 1, why: None };
        assert_eq!(next(&seen), Step::Stop);
        seen.job = Outcome::Absent;
        seen.readers = vec!["Restore/r".to_owned()];
        assert!(matches!(next(&seen), Step::Wait(cause) if cause.code == "in_use"));
    }

    #[test]
    fn nothing_written_or_no_target_holds_nothing() {
        let backup = backup("Delete");
        let mut seen = leaving(&backup);
        seen.path = None;
        assert_eq!(next(&seen), Step::Release { note: None });
        let mut seen = leaving(&backup);
        seen.target = false;
        assert!(matches!(next(&seen), Step::Release { note: Some(_) }));
    }
}
