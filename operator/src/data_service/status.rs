//! What a person reads of their service.
use culvert_resources::{
    ConditionType, DataService, DataServiceStatus, Database, DatabaseStatus, Endpoint, Phase, SecretNames,
    VersionStatus, Why,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::backups;
use super::phase::{self, Facts, phase};
use super::release::{Decided, cause};
use super::surroundings::Surroundings;
use crate::database::Names;
use crate::driver;
use crate::reconcile::{Conditions, Error, Verdict, Work};

/// Conditions that the database's controller finds and a person reads here.
const OF_DATABASE: [ConditionType; 7] = [
    ConditionType::Provisioned,
    ConditionType::Available,
    ConditionType::Progressing,
    ConditionType::UpToDate,
    ConditionType::StorageHealthy,
    ConditionType::CredentialsValid,
    ConditionType::TlsReady,
];

/// Reports.
pub(super) async fn report(
    work: &Work,
    service: &DataService,
    around: &Surroundings,
    decided: &Decided,
    database: Option<&Database>,
) -> Result<(), Error> {
    let before = service.status.as_ref().map_or(&[][..], |status| status.conditions.as_slice());
    let mut conditions = Conditions::new(before, service.metadata.generation, around.now);
    own(&mut conditions, decided);
    let reported = Reported::of(database);
    of_backups(&mut conditions, service, around, reported.status);
    // What is copied from the database was told there.
    work.tell_changes(service, &conditions).await;
    reported.copy(&mut conditions);
    let status = status(service, around, decided, &reported, conditions.done());
    tell_phase(work, service, &status).await;
    work.status(service, &status).await
}

async fn tell_phase(work: &Work, service: &DataService, status: &DataServiceStatus) {
    let before = service.status.as_ref().and_then(|status| status.phase);
    let Some(phase) = status.phase.filter(|phase| before != Some(*phase)) else { return };
    let word = format!("{phase:?}");
    let cause = status.why.as_ref().map_or_else(String::new, |why| format!(": {} {}", why.message, why.next));
    let note = format!("the service is {}{cause}", word.to_lowercase());
    match phase {
        Phase::Degraded | Phase::Unavailable => work.warn(service, &word, &note).await,
        _ => work.tell(service, &word, &note).await,
    }
}

/// What this controller decided.
fn own(conditions: &mut Conditions<'_>, decided: &Decided) {
    use ConditionType as C;
    match cause(&decided.faults) {
        Some(why) => conditions.not(C::Accepted, &why),
        None => conditions.say(C::Accepted, true, "Accepted", "The spec can be carried out."),
    };
    match (&decided.blocked, &decided.release) {
        (Some(why), _) => conditions.not(C::Preflight, why),
        (None, Some(_)) => conditions.say(C::Preflight, true, "Passed", "What it needs is there."),
        (None, None) => {
            conditions.say(C::Preflight, Verdict::Unknown, "NotLookedAt", "The spec comes first.")
        }
    };
    match decided.pending.first() {
        Some(first) => {
            let message = format!("{} waits for {}.", first.field, first.waits_for);
            conditions.say(C::MaintenancePending, true, "OutsideWindow", message)
        }
        None => conditions.say(C::MaintenancePending, false, "NothingWaits", "No change waits."),
    };
}

/// What the database's controller reported.
struct Reported<'a> {
    status: Option<&'a DatabaseStatus>,
    /// Whether the report speaks of what is released now.
    current: bool,
}

impl<'a> Reported<'a> {
    fn of(database: Option<&'a Database>) -> Self {
        let status = database.and_then(|database| database.status.as_ref());
        let observed = status.and_then(|status| status.observed_generation);
        let current = database.is_some_and(|database| observed == database.metadata.generation);
        Self { status, current }
    }

    fn copy(&self, conditions: &mut Conditions<'_>) {
        for kind in OF_DATABASE {
            let found = self.status.iter().flat_map(|status| status.conditions.iter());
            match found.into_iter().find(|condition| condition.type_ == kind.as_str()) {
                Some(found) => self.one(conditions, kind, found),
                None if kind == ConditionType::Available => {
                    conditions.say(kind, false, "NotMade", "There is no database yet.");
                }
                None => {}
            }
        }
    }

    fn one(&self, conditions: &mut Conditions<'_>, kind: ConditionType, found: &Condition) {
        // That it is up to date was said of an older release.
        if kind == ConditionType::UpToDate && !self.current {
            conditions.say(kind, false, "Released", "A change was released and is not looked at yet.");
            return;
        }
        let verdict = match found.status.as_str() {
            "True" => Verdict::True,
            "False" => Verdict::False,
            _ => Verdict::Unknown,
        };
        conditions.say(kind, verdict, &found.reason, found.message.clone());
    }
}

fn of_backups(
    conditions: &mut Conditions<'_>,
    service: &DataService,
    around: &Surroundings,
    status: Option<&DatabaseStatus>,
) {
    use ConditionType as C;
    match (backups::failed(&around.backups), backups::last(&around.backups)) {
        (Some((name, message)), _) => {
            conditions.say(
                C::BackupHealthy,
                false,
                "LastFailed",
                format!("The backup {name} failed: {message}"),
            );
        }
        (None, Some(last)) => {
            conditions.say(
                C::BackupHealthy,
                true,
                "LastSucceeded",
                format!("The backup {} is complete.", last.name),
            );
        }
        (None, None) => {
            conditions.say(C::BackupHealthy, Verdict::Unknown, "None", "No backup has ended yet.");
        }
    }
    let archived = status.and_then(|status| status.archived_until.as_deref());
    let range = backups::recoverable(&around.backups, archived);
    match backups::fresh(service.spec.backup.as_ref(), range.as_ref(), around.now) {
        Some(true) => conditions.say(
            C::RecoveryPointFresh,
            true,
            "Fresh",
            "The newest recoverable point is young enough.",
        ),
        Some(false) => {
            let message = match range {
                Some(range) => format!("Nothing after {} can be recovered.", range.until.0),
                None => "Nothing can be recovered yet.".to_owned(),
            };
            conditions.say(C::RecoveryPointFresh, false, "Stale", message)
        }
        None => {
            conditions.say(C::RecoveryPointFresh, Verdict::Unknown, "NoPlan", "No backup target is named.")
        }
    };
}

fn status(
    service: &DataService,
    around: &Surroundings,
    decided: &Decided,
    reported: &Reported<'_>,
    conditions: Vec<Condition>,
) -> DataServiceStatus {
    let below = reported.status;
    let (ready, wanted) = counted(service, below);
    // A cause from below counts while the database is not well; a fault in a new wish is told in any case.
    let why = cause(&decided.faults)
        .or_else(|| decided.blocked.clone())
        .or_else(|| below.and_then(|status| status.why.clone()));
    let running = below.and_then(|status| status.running_version.clone());
    let instances = below.and_then(|status| status.replicas).unwrap_or(0);
    let stopped = decided.release.as_ref().is_some_and(|release| release.value.spec.stopped);
    let facts = Facts {
        conditions: &conditions,
        why: why.as_ref(),
        stopped,
        served: running.is_some(),
        ready,
        wanted,
        instances,
    };
    let phase = phase(&facts);
    let doing = conditions.iter().find(|condition| condition.type_ == ConditionType::Progressing.as_str());
    let operation = phase::operation(&facts, phase, doing.map(|condition| condition.reason.as_str()));
    let archived = below.and_then(|status| status.archived_until.as_deref());
    let released = decided.release.is_some();
    DataServiceStatus {
        observed_generation: service.metadata.generation,
        phase: Some(phase),
        replicas: below.and_then(|status| status.replicas),
        ready_replicas: Some(format!("{ready}/{wanted}")),
        why: told(phase, why.clone()),
        endpoints: if released { endpoints(service) } else { Vec::new() },
        secrets: released.then(|| secrets(service)),
        version: Some(VersionStatus { running, available: decided.newer.clone() }),
        recoverable: backups::recoverable(&around.backups, archived),
        last_backup: backups::last(&around.backups),
        pending_changes: decided.pending.clone(),
        current_operation: operation,
        progress: None,
        data_bytes: below.and_then(|status| status.data_bytes),
        conditions: conditions.clone(),
    }
}

/// Nothing is told of a cause that passed: a service that is ready has none, unless a new wish is refused.
fn told(phase: Phase, why: Option<Why>) -> Option<Why> {
    match phase {
        Phase::Stopped => None,
        _ => why,
    }
}

fn counted(service: &DataService, below: Option<&DatabaseStatus>) -> (i32, i32) {
    let told =
        below.and_then(|status| status.ready_replicas.as_deref()).and_then(|text| text.split_once('/'));
    let parsed = told.and_then(|(ready, wanted)| Some((ready.parse().ok()?, wanted.parse().ok()?)));
    let wanted = if service.spec.stopped { 0 } else { service.spec.topology.replicas };
    parsed.unwrap_or((0, wanted))
}

fn endpoints(service: &DataService) -> Vec<Endpoint> {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let names = Names::new(&name, &namespace);
    let Some((engine, _)) = driver::engine(&service.spec.engine) else { return Vec::new() };
    let at =
        |name: &str, host: String| Endpoint { name: name.to_owned(), host, port: i32::from(engine.port) };
    let mut all = vec![at("primary", names.host())];
    if service.spec.topology.replicas > 1 {
        all.push(at("replicas", names.replicas_host()));
    }
    all
}

fn secrets(service: &DataService) -> SecretNames {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let names = Names::new(&name, &namespace);
    SecretNames { owner: Some(names.owner()), admin: Some(names.admin()), ca: Some(names.ca()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_on_an_older_release_does_not_say_up_to_date() {
        let mut database: Database = serde_json::from_value(serde_json::json!({
            "apiVersion": "data.culvert.dev/v1alpha1", "kind": "Database",
            "metadata": {"name": "orders", "generation": 2},
            "spec": {"engine": "postgresql", "driver": "postgresql", "version": "15.20", "image": {"engine": "e", "runner": "r"},
                "topology": {}, "resources": {}, "storage": {}},
            "status": {"observedGeneration": 1, "conditions": [{"type": "UpToDate", "status": "True", "reason": "Current",
                "message": "", "lastTransitionTime": "2026-11-25T12:00:00Z"}]},
        }))
        .unwrap();
        let said = |database: &Database| {
            let mut conditions = Conditions::new(&[], None, k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
            Reported::of(Some(database)).copy(&mut conditions);
            conditions.holds(ConditionType::UpToDate)
        };
        assert!(!said(&database));
        database.status.as_mut().unwrap().observed_generation = Some(2);
        assert!(said(&database));
    }
}
