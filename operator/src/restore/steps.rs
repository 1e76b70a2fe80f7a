//! The steps of a restore, as they stand in its status.
use culvert_resources::{Restore, RestoreStatus, Step, StepState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Reads the manifest and all digests.
pub(crate) const CHECK: &str = "check-manifest";
/// Makes sure of a fresh backup of what is replaced.
pub(crate) const PRIOR: &str = "prior-backup";
/// Makes the service.
pub(crate) const CREATE: &str = "create-service";
/// Fetches the files. The runner's to report.
pub(crate) const FETCH: &str = "fetch";
/// Plays the log back. The runner's to report.
pub(crate) const RECOVER: &str = "recover";
/// Exchanges the volumes, in place only.
pub(crate) const EXCHANGE: &str = "exchange";
/// Logs in and writes.
pub(crate) const VERIFY: &str = "verify";

/// All steps in their order.
pub(crate) const ALL: [&str; 7] = [CHECK, PRIOR, CREATE, FETCH, RECOVER, EXCHANGE, VERIFY];

/// The steps of one restore while a round decides about them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steps {
    made: Vec<Step>,
    now: Timestamp,
}

impl Steps {
    /// As they stand; those that are missing have not begun, and those for a restore in place only are left out else.
    pub(crate) fn of(restore: &Restore, now: Timestamp) -> Self {
        let standing = restore.status.clone().unwrap_or_default();
        let in_place = restore.spec.in_place.is_some();
        let made = ALL.iter().map(|name| standing_or_new(&standing, name, in_place)).collect();
        Self { made, now }
    }

    /// The state of a step.
    pub(crate) fn state(&self, name: &str) -> StepState {
        self.made.iter().find(|step| step.name == name).map_or(StepState::Pending, |step| step.state)
    }

    /// Whether a step needs nothing more.
    pub(crate) fn done(&self, name: &str) -> bool {
        matches!(self.state(name), StepState::Done | StepState::Skipped)
    }

    /// Time since a step began.
    pub(crate) fn age(&self, name: &str) -> Option<SignedDuration> {
        let step = self.made.iter().find(|step| step.name == name)?;
        step.started_at.as_ref().map(|at| self.now.duration_since(at.0))
    }

    /// A step is under way.
    pub(crate) fn run(&mut self, name: &str, message: impl Into<String>) {
        self.set(name, StepState::Running, message.into());
    }

    /// A step is done.
    pub(crate) fn finish(&mut self, name: &str, message: impl Into<String>) {
        self.set(name, StepState::Done, message.into());
    }

    /// A step has failed; what had not begun never will.
    pub(crate) fn fail(&mut self, name: &str, message: impl Into<String>) {
        self.set(name, StepState::Failed, message.into());
        for step in &mut self.made {
            if step.state == StepState::Pending {
                step.state = StepState::Skipped;
            }
        }
    }

    /// The step that is under way, or else the first that is not done.
    pub(crate) fn current(&self) -> &str {
        let running = self.made.iter().find(|step| step.state == StepState::Running);
        let open = || self.made.iter().find(|step| step.state == StepState::Pending);
        running.or_else(open).map_or(VERIFY, |step| step.name.as_str())
    }

    /// Those that the operator reports: the runner's own only until it has spoken of them.
    pub(crate) fn ours(self, restore: &Restore) -> Vec<Step> {
        let standing = restore.status.clone().unwrap_or_default();
        let spoken = |name: &str| {
            let step = standing.steps.iter().find(|step| step.name == name);
            step.is_some_and(|step| {
                matches!(step.state, StepState::Running | StepState::Done | StepState::Failed)
            })
        };
        let over = |step: &Step| !matches!(step.state, StepState::Pending | StepState::Running);
        let made = self.made.into_iter();
        made.filter(|step| {
            !matches!(step.name.as_str(), FETCH | RECOVER) || !spoken(&step.name) || over(step)
        })
        .collect()
    }

    fn set(&mut self, name: &str, state: StepState, message: String) {
        let now = Time(self.now);
        let Some(step) = self.made.iter_mut().find(|step| step.name == name) else { return };
        if step.started_at.is_none() {
            step.started_at = Some(now.clone());
        }
        let ends = matches!(state, StepState::Done | StepState::Failed | StepState::Skipped);
        if ends && step.ended_at.is_none() {
            step.ended_at = Some(now);
        }
        step.state = state;
        step.message = message;
    }
}

fn standing_or_new(standing: &RestoreStatus, name: &str, in_place: bool) -> Step {
    if let Some(step) = standing.steps.iter().find(|step| step.name == name) {
        return step.clone();
    }
    let needed = in_place || !matches!(name, PRIOR | EXCHANGE);
    let state = if needed { StepState::Pending } else { StepState::Skipped };
    Step { name: name.to_owned(), state, started_at: None, ended_at: None, message: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::compose::tests::restore;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_new_service_needs_no_prior_backup() {
        let one = restore(json!({"service": "s", "source": {"backup": "b"}}));
        let steps = Steps::of(&one, now());
        assert_eq!((steps.state(PRIOR), steps.state(EXCHANGE)), (StepState::Skipped, StepState::Skipped));
        assert_eq!(steps.current(), CHECK);
    }

    #[test]
    fn after_a_failure_nothing_is_pending() {
        let one = restore(json!({"service": "s", "source": {"backup": "b"}, "inPlace": {"confirm": "u"}}));
        let mut steps = Steps::of(&one, now());
        steps.finish(CHECK, "");
        steps.fail(PRIOR, "no room");
        assert_eq!(steps.state(CHECK), StepState::Done);
        assert!(steps.made.iter().all(|step| step.state != StepState::Pending));
        assert!(steps.made.iter().all(|step| step.state != StepState::Done || step.ended_at.is_some()));
    }

    #[test]
    fn what_the_runner_says_of_its_steps_is_its_own() {
        let mut one = restore(json!({"service": "s", "source": {"backup": "b"}}));
        let names = |steps: Vec<Step>| steps.into_iter().map(|step| step.name).collect::<Vec<_>>();
        assert!(names(Steps::of(&one, now()).ours(&one)).contains(&FETCH.to_owned()));
        one.status =
            serde_json::from_value(json!({"steps": [{"name": "fetch", "state": "Running"}]})).unwrap();
        let ours = names(Steps::of(&one, now()).ours(&one));
        assert!(!ours.contains(&FETCH.to_owned()) && ours.contains(&RECOVER.to_owned()));
    }
}
