//! What is to be done about a restore, and what is to be said of it: from what was seen, without effect.
//!
//! The service that is made is marked as made by this restore, and only that mark lets the restore touch it. A restore that
//! fails removes what it made, so that nobody mistakes half of the data for all of it.
use culvert_resources::job::Inspected;
use culvert_resources::{
    Backup, BackupPhase, BackupTarget, ConditionType, DataService, DataServiceSpec, Failure, Restore,
    RestorePhase, StepState, Why, meta,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::compose::{self, Here};
use super::exchange::{Exchange, Move};
use super::steps::{CHECK, CREATE, EXCHANGE, FETCH, PRIOR, RECOVER, Steps, VERIFY};
use crate::jobs::causes::{failure_of, why, why_of};
use crate::jobs::outcome::Outcome;

/// A backup that is older is no prior backup of a restore in place.
const PRIOR_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Time in which a service must answer with exchanged volumes, before the old ones come back.
const ANSWER: SignedDuration = SignedDuration::from_mins(10);

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'a> {
    /// The restore.
    pub(crate) restore: &'a Restore,
    /// The backup that it names.
    pub(crate) backup: Option<Backup>,
    /// The target that it is fetched from.
    pub(crate) target: Option<BackupTarget>,
    /// The Job that looks at the backup.
    pub(crate) inspect: Outcome,
    /// The service with the wanted name.
    pub(crate) service: Option<DataService>,
    /// The service that is filled: the same, or in place the one that stands in.
    pub(crate) filled: Option<DataService>,
    /// The backup made before a restore in place.
    pub(crate) prior: Option<Backup>,
    /// How far the exchange of volumes is.
    pub(crate) exchange: Option<Exchange>,
    /// What of this cluster matters.
    pub(crate) here: Here,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Nothing.
    Nothing,
    /// See that the Job that looks at the backup exists.
    Inspect,
    /// End that Job.
    EndInspect,
    /// Make the service that is filled.
    Create(Box<DataServiceSpec>),
    /// Make the prior backup.
    Prior,
    /// Go on with the exchange of volumes.
    Exchange(Move),
    /// Remove the service that was filled.
    Discard,
}

/// What is to be done and said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub(crate) act: Act,
    pub(crate) steps: Steps,
    pub(crate) phase: RestorePhase,
    pub(crate) failure: Option<Failure>,
    pub(crate) why: Option<Why>,
    /// What was found in the target, once it is checked.
    pub(crate) found: Option<Checked>,
    /// Seconds until the next look.
    pub(crate) seconds: u64,
}

/// What an instance needs to fill itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) target: String,
    pub(crate) path: String,
    pub(crate) digest: String,
}

/// Decides.
pub(crate) fn decide(seen: &Seen<'_>) -> Decision {
    let round = Round { seen, steps: Steps::of(seen.restore, seen.now) };
    match seen.restore.status.as_ref().and_then(|status| status.phase) {
        Some(RestorePhase::Complete) => round.tidy_complete(),
        Some(phase @ (RestorePhase::Failed | RestorePhase::Cancelled)) => round.tidy(phase),
        _ => round.go_on(),
    }
}

struct Round<'a> {
    seen: &'a Seen<'a>,
    steps: Steps,
}

/// Either a decision, or on with the next step.
type Onward<'a> = Result<Round<'a>, Box<Decision>>;

impl<'a> Round<'a> {
    fn go_on(self) -> Decision {
        let ended = self
            .stopped()
            .and_then(Self::check)
            .and_then(Self::prior)
            .and_then(Self::create)
            .and_then(Self::fill)
            .and_then(Self::exchange)
            .map(Self::verified);
        ended.unwrap_or_else(|decision| *decision)
    }

    /// Somebody cancelled it, or its time is over.
    fn stopped(self) -> Onward<'a> {
        let restore = self.seen.restore;
        if restore.annotations().contains_key(meta::CANCEL) {
            let cause = why("cancelled", "It was cancelled.", "Make a new one when it is wanted.");
            return Err(self.give_up(&cause, RestorePhase::Cancelled));
        }
        let limit = SignedDuration::from_secs(restore.spec.deadline_seconds);
        let made = restore.metadata.creation_timestamp.as_ref();
        if made.is_some_and(|made| self.seen.now.duration_since(made.0) > limit) {
            let stuck = restore.status.as_ref().and_then(|status| status.why.clone());
            let waited = stuck.map(|why| format!(" It waited: {}", why.message)).unwrap_or_default();
            let message = format!("It did not end within {} s.{waited}", restore.spec.deadline_seconds);
            let cause = why("deadline", message, "Raise the deadline, or mend what it waited for.");
            return Err(self.give_up(&cause, RestorePhase::Failed));
        }
        Ok(self)
    }

    /// The backup is whole, fits, and reaches the wanted moment.
    fn check(mut self) -> Onward<'a> {
        if self.steps.done(CHECK) && self.checked().is_some() {
            return Ok(self);
        }
        self.steps.run(CHECK, "");
        if let Err(cause) = self.may_begin() {
            return Err(self.wait_or_fail(cause));
        }
        match self.seen.inspect.clone() {
            Outcome::Absent => Err(self.wait(Act::Inspect, None)),
            Outcome::Active { why, .. } => Err(self.wait(Act::Inspect, why)),
            Outcome::Failed { failure, .. } => Err(self.fail(&why_of(&failure))),
            Outcome::Succeeded { .. } => match self.inspected() {
                Ok(found) => Err(self.note(&found)),
                Err(cause) => Err(self.fail(&cause)),
            },
        }
    }

    /// What the Job found, if it can be brought back.
    fn inspected(&self) -> Result<Inspected, Why> {
        let Outcome::Succeeded { message, .. } = &self.seen.inspect else {
            return Err(why("waiting", "The backup is being looked at.", "Wait."));
        };
        let text = message.as_deref().unwrap_or_default();
        let found: Inspected = serde_json::from_str(text).map_err(|error| {
            let message =
                format!("The Job that looked at the backup left no result that can be read: {error}.");
            why("no_manifest", message, "Look at the log of its pod.")
        })?;
        let digest =
            self.seen.backup.as_ref().and_then(|backup| backup.status.as_ref()?.manifest_digest.clone());
        compose::check(self.seen.restore, &found, digest.as_deref(), self.seen.now)?;
        self.spec(&found)?;
        Ok(found)
    }

    fn spec(&self, found: &Inspected) -> Result<DataServiceSpec, Why> {
        match (&self.seen.restore.spec.in_place, &self.seen.service) {
            (Some(_), Some(service)) => compose::stand_in(self.seen.restore, service, found),
            _ => compose::spec(self.seen.restore, found, &self.seen.here),
        }
    }

    /// The check is done: it stands in the status before anything is made from it.
    fn note(mut self, found: &Inspected) -> Box<Decision> {
        let message = format!(
            "{} {}, {} of data",
            found.engine,
            found.version,
            culvert_engines::words(found.data_bytes)
        );
        self.steps.finish(CHECK, message);
        let target = self.seen.target.as_ref().map(|one| one.name_any()).unwrap_or_default();
        let checked = Checked { target, path: found.path.clone(), digest: found.manifest_digest.clone() };
        let mut decision = self.say(Act::Nothing, RestorePhase::Running, None);
        decision.found = Some(checked);
        decision.seconds = 1;
        Box::new(decision)
    }

    /// What the restore names exists, and the name of the new service is free.
    fn may_begin(&self) -> Result<(), Why> {
        let (seen, spec) = (self.seen, &self.seen.restore.spec);
        if let Some(name) = &spec.source.backup {
            whole(name, seen.backup.as_ref())?;
        }
        if seen.target.is_none() {
            return Err(why(
                "no_target",
                "There is no backup target with the name that it needs.",
                "Make it.",
            ));
        }
        match (&spec.in_place, &seen.service) {
            (Some(wanted), Some(service)) if service.uid().as_ref() == Some(&wanted.confirm) => Ok(()),
            (Some(_), _) => {
                let message = format!("inPlace.confirm is not the uid of the data service {}.", spec.service);
                Err(why(
                    "confirm_mismatch",
                    message,
                    "Give the uid of the very service that is to be replaced.",
                ))
            }
            (None, Some(service)) if !compose::made_by(service, seen.restore) => {
                let message = format!("There is a data service {} already.", spec.service);
                Err(why("name_taken", message, "Choose another name, or restore in place."))
            }
            (None, _) => Ok(()),
        }
    }

    /// In place only: what is replaced has been backed up within the hour.
    fn prior(mut self) -> Onward<'a> {
        let Some(in_place) = &self.seen.restore.spec.in_place else { return Ok(self) };
        if self.steps.done(PRIOR) {
            return Ok(self);
        }
        let named = in_place.prior_backup.is_some();
        let Some(prior) = self.seen.prior.clone() else {
            if named {
                let cause = why(
                    "prior_backup_unfit",
                    "The prior backup does not exist.",
                    "Leave it out: one is made.",
                );
                return Err(self.fail_at(PRIOR, &cause));
            }
            self.steps.run(PRIOR, "");
            return Err(self.wait(Act::Prior, None));
        };
        self.steps.run(PRIOR, prior.name_any());
        match fit_as_prior(self.seen.restore, &prior) {
            Ok(true) => {
                self.steps.finish(PRIOR, prior.name_any());
                Ok(self)
            }
            Ok(false) => {
                let cause = prior.status.as_ref().and_then(|status| status.why.clone());
                Err(self.wait(Act::Nothing, cause))
            }
            Err(cause) => Err(self.fail_at(PRIOR, &cause)),
        }
    }

    fn create(mut self) -> Onward<'a> {
        if self.steps.done(CREATE) {
            return Ok(self);
        }
        match &self.seen.filled {
            Some(filled) if compose::made_by(filled, self.seen.restore) => {
                self.steps.finish(CREATE, filled.name_any());
                Ok(self)
            }
            Some(filled) => {
                let message = format!("There is a data service {} already.", filled.name_any());
                let cause = why("name_taken", message, "Choose another name.");
                Err(self.fail_at(CREATE, &cause))
            }
            None => {
                self.steps.run(CREATE, "");
                Err(self.made())
            }
        }
    }

    fn made(self) -> Box<Decision> {
        match self.inspected().and_then(|found| self.spec(&found)) {
            Ok(spec) => self.wait(Act::Create(Box::new(spec)), None),
            // The Job's result has gone with its time to live: look again.
            Err(cause) if cause.code == "waiting" => self.wait(Act::Inspect, None),
            Err(cause) => self.fail_at(CREATE, &cause),
        }
    }

    /// The runner fetches and recovers; the service answers when it is done.
    fn fill(mut self) -> Onward<'a> {
        // Once volumes are being exchanged the stand-in does not run any more.
        if self.exchange_begun() {
            return Ok(self);
        }
        let told = self.seen.restore.status.as_ref().and_then(|status| status.failure.clone());
        if let Some(failure) = told {
            let step = if self.steps.done(FETCH) { RECOVER } else { FETCH };
            return Err(self.fail_at(step, &why_of(&failure)));
        }
        let Some(filled) = &self.seen.filled else {
            let cause =
                why("service_deleted", "The service that is filled was deleted.", "Make a new restore.");
            return Err(self.fail_at(CREATE, &cause));
        };
        if filled.metadata.deletion_timestamp.is_some() {
            let cause =
                why("service_deleted", "The service that is filled is being deleted.", "Make a new restore.");
            return Err(self.fail_at(CREATE, &cause));
        }
        if !available(filled) {
            if self.steps.state(FETCH) == StepState::Done && self.steps.state(RECOVER) == StepState::Done {
                self.steps.run(VERIFY, "");
            }
            let cause = filled.status.as_ref().and_then(|status| status.why.clone());
            return Err(self.wait(Act::Nothing, cause));
        }
        for step in [FETCH, RECOVER] {
            if !self.steps.done(step) {
                self.steps.finish(step, "");
            }
        }
        Ok(self)
    }

    fn exchange_begun(&self) -> bool {
        matches!(self.steps.state(EXCHANGE), StepState::Running | StepState::Done)
    }

    /// In place only: the volumes of service and stand-in are exchanged, and the service must answer with the new data.
    fn exchange(mut self) -> Onward<'a> {
        let Some(exchange) = &self.seen.exchange else { return Ok(self) };
        if !self.steps.done(EXCHANGE) {
            self.steps.run(EXCHANGE, "");
            return match exchange.forward() {
                Some(step) => Err(self.wait(Act::Exchange(step), None)),
                None => {
                    self.steps.finish(EXCHANGE, "the old volumes are kept until the service answers");
                    self.steps.run(VERIFY, "");
                    Err(self.wait(Act::Nothing, None))
                }
            };
        }
        let service = self.seen.service.as_ref();
        if service.is_some_and(available) {
            return Ok(self);
        }
        let cause = service.and_then(|service| service.status.as_ref()?.why.clone());
        if self.steps.age(VERIFY).is_none_or(|age| age < ANSWER) {
            return Err(self.wait(Act::Nothing, cause));
        }
        let told = cause.map(|why| format!(": {}", why.message)).unwrap_or_default();
        let message =
            format!("The service did not answer with the new data within {} min{told}", ANSWER.as_mins());
        let next = "The old data comes back; see why the new one does not do.";
        Err(self.fail_at(VERIFY, &why("no_answer", message, next)))
    }

    fn verified(mut self) -> Decision {
        self.steps.finish(VERIFY, "a login and a write succeeded");
        self.say(Act::Nothing, RestorePhase::Complete, None)
    }

    /// It has ended well: what was only needed on the way goes.
    fn tidy_complete(self) -> Decision {
        let in_place = self.seen.restore.spec.in_place.is_some();
        let settle = self.seen.exchange.as_ref().and_then(Exchange::settle);
        let stand_in =
            in_place && self.seen.filled.as_ref().is_some_and(|one| compose::made_by(one, self.seen.restore));
        let act = match settle {
            Some(step) => Act::Exchange(step),
            None if stand_in => Act::Discard,
            None => Act::Nothing,
        };
        let seconds = if act == Act::Nothing { 600 } else { 3 };
        let mut decision = self.say(act, RestorePhase::Complete, None);
        decision.seconds = seconds;
        decision
    }

    /// It has ended badly: what it made goes, whatever stopped us before.
    fn tidy(self, phase: RestorePhase) -> Decision {
        let undo =
            self.seen.exchange.as_ref().and_then(|exchange| exchange.back().or_else(|| exchange.settle()));
        let made =
            self.seen.filled.as_ref().is_some_and(|filled| compose::made_by(filled, self.seen.restore));
        let act = match (undo, made) {
            (Some(step), _) => Act::Exchange(step),
            (None, true) => Act::Discard,
            (None, false) if self.seen.inspect.active() => Act::EndInspect,
            (None, false) => Act::Nothing,
        };
        let seconds = if act == Act::Nothing { 600 } else { 5 };
        let status = self.seen.restore.status.clone().unwrap_or_default();
        let (failure, cause) = (status.failure, status.why);
        let mut decision = self.say(act, phase, cause);
        (decision.failure, decision.seconds) = (failure, seconds);
        decision
    }

    fn checked(&self) -> Option<Checked> {
        let status = self.seen.restore.status.as_ref()?;
        Some(Checked {
            target: status.target.clone()?,
            path: status.path.clone()?,
            digest: status.manifest_digest.clone()?,
        })
    }

    fn wait_or_fail(self, cause: Why) -> Box<Decision> {
        // What is not there yet may come with the next object that is applied.
        let patient = matches!(cause.code.as_str(), "no_target" | "no_backup" | "waiting");
        if patient { self.wait(Act::Nothing, Some(cause)) } else { self.fail(&cause) }
    }

    fn wait(self, act: Act, cause: Option<Why>) -> Box<Decision> {
        Box::new(self.say(act, RestorePhase::Running, cause))
    }

    fn fail(self, cause: &Why) -> Box<Decision> {
        let step = self.steps.current().to_owned();
        self.fail_at(&step, cause)
    }

    fn fail_at(mut self, step: &str, cause: &Why) -> Box<Decision> {
        self.steps.fail(step, cause.message.clone());
        let mut decision = self.say(Act::Nothing, RestorePhase::Failed, Some(cause.clone()));
        decision.failure = Some(failure_of(cause, step));
        decision.seconds = 1;
        Box::new(decision)
    }

    fn give_up(self, cause: &Why, phase: RestorePhase) -> Box<Decision> {
        let mut decision = self.fail(cause);
        decision.phase = phase;
        decision
    }

    fn say(self, act: Act, phase: RestorePhase, why: Option<Why>) -> Decision {
        let found = self.checked();
        Decision { act, steps: self.steps, phase, failure: None, why, found, seconds: 10 }
    }
}

/// A backup that can be restored: it is complete, and has not been found broken.
fn whole(name: &str, backup: Option<&Backup>) -> Result<(), Why> {
    let Some(backup) = backup else {
        return Err(why(
            "no_backup",
            format!("There is no backup {name}."),
            "Name another, or give target and path.",
        ));
    };
    match backup.status.as_ref().and_then(|status| status.phase) {
        Some(BackupPhase::Complete) => Ok(()),
        None | Some(BackupPhase::Pending | BackupPhase::Running) => {
            Err(why("waiting", format!("The backup {name} has not ended."), "Wait for its end."))
        }
        Some(BackupPhase::Failed | BackupPhase::Cancelled | BackupPhase::Deleting) => {
            Err(why("backup_incomplete", format!("The backup {name} is not whole."), "Name another."))
        }
    }
}

/// Whether the prior backup is done; an error when it will never do.
fn fit_as_prior(restore: &Restore, prior: &Backup) -> Result<bool, Why> {
    let unfit = |message: String| why("prior_backup_unfit", message, "Leave it out: one is made.");
    if prior.spec.service != restore.spec.service {
        return Err(unfit(format!("The prior backup {} is of another service.", prior.name_any())));
    }
    let status = prior.status.clone().unwrap_or_default();
    match status.phase {
        Some(BackupPhase::Complete) => {}
        None | Some(BackupPhase::Pending | BackupPhase::Running) => return Ok(false),
        Some(BackupPhase::Failed | BackupPhase::Cancelled | BackupPhase::Deleting) => {
            let told = status.failure.map(|failure| format!(": {}", failure.message)).unwrap_or_default();
            return Err(unfit(format!("The prior backup {} failed{told}", prior.name_any())));
        }
    }
    let made = restore.metadata.creation_timestamp.as_ref().map(|made| made.0);
    let ended = status.ended_at.map(|ended| ended.0);
    let old = made.zip(ended).is_some_and(|(made, ended)| made.duration_since(ended) > PRIOR_AGE);
    if old {
        return Err(unfit(format!("The prior backup {} is older than an hour.", prior.name_any())));
    }
    Ok(true)
}

/// Whether a login and a write succeed in a service, as its controller says of its present spec.
pub(crate) fn available(service: &DataService) -> bool {
    let Some(status) = &service.status else { return false };
    status.observed_generation == service.metadata.generation
        && status
            .conditions
            .iter()
            .any(|one| one.type_ == ConditionType::Available.as_str() && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::compose::tests::{inspected, restore};
    use serde_json::{Value, json};

    const MADE: &str = "2026-05-01T12:00:00Z";

    fn later(minutes: i64) -> Timestamp {
        MADE.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    fn backup(name: &str, status: Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Backup", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"service": "orders", "target": "away"}, "status": status,
        }))
        .unwrap()
    }

    fn complete() -> Backup {
        backup(
            "b",
            json!({"phase": "Complete", "attempt": 1, "path": "p", "manifestDigest": "d", "endedAt": "2026-05-01T11:30:00Z"}),
        )
    }

    fn target() -> BackupTarget {
        serde_json::from_value(json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "BackupTarget", "metadata": {"name": "away", "namespace": "shop"},
            "spec": {"s3": {"bucket": "b"}},
        }))
        .unwrap()
    }

    fn seen(restore: &Restore) -> Seen<'_> {
        Seen {
            restore,
            backup: Some(complete()),
            target: Some(target()),
            inspect: Outcome::Absent,
            service: None,
            filled: None,
            prior: None,
            exchange: None,
            here: Here::default(),
            now: later(1),
        }
    }

    fn looked() -> Outcome {
        Outcome::Succeeded { message: Some(serde_json::to_string(&inspected()).unwrap()), at: None }
    }

    fn plain() -> Restore {
        restore(json!({"service": "orders2", "source": {"backup": "b"}}))
    }

    /// A restore whose check is done and stands in its status.
    fn checked(mut one: Restore) -> Restore {
        one.status = serde_json::from_value(json!({
            "phase": "Running", "target": "away", "path": "p", "manifestDigest": "d",
            "steps": [{"name": "check-manifest", "state": "Done"}],
        }))
        .unwrap();
        one
    }

    fn filled(one: &Restore, status: Value) -> DataService {
        let spec = compose::spec(one, &inspected(), &Here::default()).unwrap();
        let mut service = compose::service(one, "orders2", spec);
        service.metadata.generation = Some(1);
        service.status = serde_json::from_value(status).unwrap();
        service
    }

    fn answering() -> Value {
        json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": MADE}]})
    }

    fn code(decision: &Decision) -> Option<&str> {
        decision.failure.as_ref().map(|failure| failure.code.as_str())
    }

    #[test]
    fn it_looks_before_it_makes() {
        let one = plain();
        let mut seen = seen(&one);
        let first = decide(&seen);
        assert_eq!((first.act, first.phase), (Act::Inspect, RestorePhase::Running));
        seen.inspect = looked();
        let noted = decide(&seen);
        assert_eq!(noted.act, Act::Nothing, "the check stands in the status before anything is made");
        assert_eq!(noted.found.unwrap().path, "services/a.orders.1/backups/b");
        let noted = checked(plain());
        seen.restore = &noted;
        assert!(matches!(decide(&seen).act, Act::Create(_)));
    }

    #[test]
    fn a_taken_name_a_half_backup_and_a_wrong_digest_make_nothing() {
        let one = plain();
        let mut taken = seen(&one);
        taken.service = Some(DataService::new("orders2", DataServiceSpec::default()));
        taken.filled = taken.service.clone();
        assert_eq!(code(&decide(&taken)), Some("name_taken"));
        let mut half = seen(&one);
        half.backup = Some(backup("b", json!({"phase": "Failed", "attempt": 3})));
        assert_eq!(code(&decide(&half)), Some("backup_incomplete"));
        let mut forged = seen(&one);
        forged.inspect = looked();
        forged.backup =
            Some(backup("b", json!({"phase": "Complete", "attempt": 1, "manifestDigest": "another"})));
        let decision = decide(&forged);
        assert_eq!((code(&decision), decision.act.clone()), (Some("backup_changed"), Act::Nothing));
    }

    #[test]
    fn what_may_still_come_is_waited_for_until_the_deadline() {
        let one = plain();
        let mut early = seen(&one);
        early.backup = None;
        let decision = decide(&early);
        assert_eq!(
            (decision.phase, decision.why.unwrap().code.as_str()),
            (RestorePhase::Running, "no_backup")
        );
        early.now = later(400);
        assert_eq!(code(&decide(&early)), Some("deadline"));
    }

    #[test]
    fn it_is_complete_when_the_service_answers_and_not_before() {
        let one = checked(plain());
        let mut seen = seen(&one);
        seen.filled = Some(filled(&one, json!({"observedGeneration": 1})));
        assert_eq!(decide(&seen).phase, RestorePhase::Running);
        let mut stale = answering();
        stale["observedGeneration"] = json!(0);
        seen.filled = Some(filled(&one, stale));
        assert_eq!(decide(&seen).phase, RestorePhase::Running, "the answer is of an older spec");
        seen.filled = Some(filled(&one, answering()));
        assert_eq!(decide(&seen).phase, RestorePhase::Complete);
    }

    #[test]
    fn what_the_runner_says_of_its_failure_ends_it_and_what_was_made_goes() {
        let mut one = checked(plain());
        let failure = json!({"step": "fetch", "code": "backup_damaged", "message": "m", "hint": "h"});
        one.status.as_mut().unwrap().failure = serde_json::from_value(failure).unwrap();
        let mut seen = seen(&one);
        seen.filled = Some(filled(&one, Value::Null));
        seen.service = seen.filled.clone();
        let failed = decide(&seen);
        assert_eq!((failed.phase, code(&failed)), (RestorePhase::Failed, Some("backup_damaged")));
        let mut over = one.clone();
        over.status.as_mut().unwrap().phase = Some(RestorePhase::Failed);
        seen.restore = &over;
        assert_eq!(decide(&seen).act, Act::Discard);
        seen.filled = Some(DataService::new("orders2", DataServiceSpec::default()));
        assert_eq!(decide(&seen).act, Act::Nothing, "somebody else's service of that name stays");
    }

    #[test]
    fn a_cancelled_one_ends_as_cancelled() {
        let mut one = checked(plain());
        one.metadata.annotations = Some([(meta::CANCEL.to_owned(), "yes".to_owned())].into());
        let mut seen = seen(&one);
        seen.filled = Some(filled(&one, answering()));
        assert_eq!(decide(&seen).phase, RestorePhase::Cancelled);
    }

    #[test]
    fn a_service_that_is_deleted_meanwhile_fails_it() {
        let mut one = checked(plain());
        one.status
            .as_mut()
            .unwrap()
            .steps
            .push(serde_json::from_value(json!({"name": "create-service", "state": "Done"})).unwrap());
        assert_eq!(code(&decide(&seen(&one))), Some("service_deleted"));
    }

    fn in_place(extra: Value) -> Restore {
        let mut wish = json!({"confirm": "service-uid"});
        for (key, value) in extra.as_object().unwrap() {
            wish[key] = value.clone();
        }
        restore(json!({"service": "orders", "source": {"backup": "b"}, "inPlace": wish}))
    }

    fn replaced(uid: &str) -> DataService {
        let mut service = DataService::new("orders", DataServiceSpec::default());
        service.metadata.uid = Some(uid.to_owned());
        service.spec = serde_json::from_value(inspected().service_spec).unwrap();
        service
    }

    #[test]
    fn in_place_needs_the_uid_of_the_very_service() {
        let one = in_place(json!({}));
        let mut seen = seen(&one);
        seen.service = Some(replaced("another"));
        assert_eq!(code(&decide(&seen)), Some("confirm_mismatch"));
        seen.service = None;
        assert_eq!(code(&decide(&seen)), Some("confirm_mismatch"));
        seen.service = Some(replaced("service-uid"));
        assert_eq!(decide(&seen).act, Act::Inspect);
    }

    #[test]
    fn in_place_needs_a_backup_of_the_last_hour() {
        let one = checked(in_place(json!({})));
        let mut seen = seen(&one);
        seen.service = Some(replaced("service-uid"));
        assert_eq!(decide(&seen).act, Act::Prior);
        seen.prior = Some(backup("p", json!({"phase": "Running", "attempt": 1})));
        assert_eq!(decide(&seen).act, Act::Nothing);
        seen.prior = Some(backup("p", json!({"phase": "Failed", "attempt": 3})));
        assert_eq!(code(&decide(&seen)), Some("prior_backup_unfit"));
        seen.prior =
            Some(backup("p", json!({"phase": "Complete", "attempt": 1, "endedAt": "2026-05-01T10:59:00Z"})));
        assert_eq!(code(&decide(&seen)), Some("prior_backup_unfit"));
        seen.prior =
            Some(backup("p", json!({"phase": "Complete", "attempt": 1, "endedAt": "2026-05-01T11:01:00Z"})));
        seen.inspect = looked();
        assert!(matches!(decide(&seen).act, Act::Create(_)));
    }

    #[test]
    fn a_named_prior_backup_that_is_not_there_is_not_made() {
        let one = checked(in_place(json!({"priorBackup": "gone"})));
        let mut seen = seen(&one);
        seen.service = Some(replaced("service-uid"));
        assert_eq!(code(&decide(&seen)), Some("prior_backup_unfit"));
    }
}
