//! The fields in which two specs differ, with the effect of each.

use std::collections::BTreeSet;

use culvert_resources::{BackupPlan, DataServiceSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use crate::Amount;
use crate::catalogue::Engine;
use crate::parameter::Apply;
use crate::plan::{Change, Effect, Seen};

/// Every field that changes, in the order of the spec.
pub(crate) fn changes(
    engine: &Engine,
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
    version: Option<&str>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(version_change(current, desired, seen, version));
    changes.extend(sizes(current, desired));
    changes.extend(parameters(engine, current, desired));
    changes.extend(surroundings(current, desired));
    changes.extend(acts(current, desired));
    changes
}

fn change(
    field: &str,
    from: Option<String>,
    to: Option<String>,
    effect: Effect,
    note: &str,
) -> Option<Change> {
    (from != to).then(|| Change { field: field.to_owned(), from, to, effect, note: note.to_owned() })
}

fn version_change(
    current: &DataServiceSpec,
    desired: &DataServiceSpec,
    seen: &Seen,
    version: Option<&str>,
) -> Option<Change> {
    let from = seen.running_version.clone().unwrap_or_else(|| current.version.clone());
    let to = version.unwrap_or(&desired.version).to_owned();
    // What follows a major by itself is no change that somebody makes now, but it is done now.
    let note =
        if current.version == desired.version && from != to { "the cluster has a newer release" } else { "" };
    let asked = current.version != desired.version || seen.running_version.is_some();
    if asked { change("version", Some(from), Some(to), Effect::RollingRestart, note) } else { None }
}

fn sizes(current: &DataServiceSpec, desired: &DataServiceSpec) -> Vec<Change> {
    let more = desired.topology.replicas > current.topology.replicas;
    let note = if more {
        "new instances copy the primary's data"
    } else {
        "the volumes of the removed instances stay"
    };
    let flag = |on: bool| Some(on.to_string());
    let (was, is) = (&current.topology, &desired.topology);
    [
        change(
            "topology.replicas",
            Some(was.replicas.to_string()),
            Some(is.replicas.to_string()),
            Effect::None,
            note,
        ),
        change("topology.synchronous", flag(was.synchronous), flag(is.synchronous), Effect::Reload, ""),
        quantity("resources.cpu", &current.resources.cpu, &desired.resources.cpu, Effect::RollingRestart),
        quantity(
            "resources.memory",
            &current.resources.memory,
            &desired.resources.memory,
            Effect::RollingRestart,
        ),
        quantity("storage.size", &current.storage.size, &desired.storage.size, Effect::Grow),
        change(
            "storage.class",
            current.storage.class.clone(),
            desired.storage.class.clone(),
            Effect::Recreate,
            "",
        ),
        growth_limit(current, desired),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn growth_limit(current: &DataServiceSpec, desired: &DataServiceSpec) -> Option<Change> {
    let text = |limit: &Option<Quantity>| limit.as_ref().map(|limit| limit.0.clone());
    let (from, to) = (&current.storage.growth_limit, &desired.storage.growth_limit);
    if let (Some(from), Some(to)) = (from, to)
        && same(from, to)
    {
        return None;
    }
    change("storage.growthLimit", text(from), text(to), Effect::None, "")
}

fn quantity(field: &str, from: &Quantity, to: &Quantity, effect: Effect) -> Option<Change> {
    if same(from, to) {
        return None;
    }
    change(field, Some(from.0.clone()), Some(to.0.clone()), effect, "")
}

fn same(a: &Quantity, b: &Quantity) -> bool {
    a == b || Amount::of(a).ok().zip(Amount::of(b).ok()).is_some_and(|(a, b)| a == b)
}

/// Parameters that will be in force with another value, whether a person changed them or they follow the size.
fn parameters(engine: &Engine, current: &DataServiceSpec, desired: &DataServiceSpec) -> Vec<Change> {
    let (was, is) = (engine.resolve_parameters(current), engine.resolve_parameters(desired));
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let one = |name: &&String| {
        let (from, to) = (was.get(*name), is.get(*name));
        let effect = engine.effect_of(name);
        let asked = current.parameters.contains_key(*name) || desired.parameters.contains_key(*name);
        let note = if asked { "" } else { "follows the size of the instance" };
        (!engine.same_value(name, from, to))
            .then(|| change(&format!("parameters.{name}"), from.cloned(), to.cloned(), effect, note))?
    };
    names.iter().filter_map(one).collect()
}

impl Engine {
    /// What setting a parameter costs; a restart when it is not known.
    #[must_use]
    pub fn effect_of(&self, parameter: &str) -> Effect {
        match self.parameters.get(parameter).map(|parameter| parameter.apply) {
            Some(Apply::Reload) => Effect::Reload,
            Some(Apply::Restart | Apply::Fixed) | None => Effect::RollingRestart,
        }
    }

    /// Whether two values of a parameter mean the same: `1GB` and `1024MB`; absent means the engine's default.
    #[must_use]
    pub fn same_value(&self, name: &str, from: Option<&String>, to: Option<&String>) -> bool {
        let Some(parameter) = self.parameters.get(name) else { return from == to };
        let (from, to) = (from.or(parameter.default.as_ref()), to.or(parameter.default.as_ref()));
        let number = |value: Option<&String>| value.and_then(|value| parameter.number(&self.units, value));
        from == to || number(from).zip(number(to)).is_some_and(|(from, to)| from.total_cmp(&to).is_eq())
    }
}

/// What surrounds the engine: network, encryption, backup, maintenance, deletion.
fn surroundings(current: &DataServiceSpec, desired: &DataServiceSpec) -> Vec<Change> {
    let mut changes: Vec<Change> = backup(current.backup.as_ref(), desired.backup.as_ref());
    changes.extend(change(
        "network",
        json(&current.network),
        json(&desired.network),
        Effect::None,
        "open connections stay",
    ));
    changes.extend(change("tls.mode", json(&current.tls.mode), json(&desired.tls.mode), Effect::Reload, ""));
    changes.extend(change(
        "maintenance",
        json(&current.maintenance),
        json(&desired.maintenance),
        Effect::None,
        "",
    ));
    changes.extend(change("deletion", json(&current.deletion), json(&desired.deletion), Effect::None, ""));
    changes.extend(change("template", json(&current.template), json(&desired.template), Effect::None, ""));
    changes
}

/// The archive's credentials are mounted into the instances, so that another target restarts them.
fn backup(current: Option<&BackupPlan>, desired: Option<&BackupPlan>) -> Vec<Change> {
    let target = |plan: Option<&BackupPlan>| plan.map(|plan| plan.target.clone());
    let archive = |plan: Option<&BackupPlan>| plan.map(|plan| plan.archive.to_string());
    let objective =
        |plan: Option<&BackupPlan>| plan.map(|plan| plan.recovery_point_objective_seconds.to_string());
    let archives = |plan: Option<&BackupPlan>| plan.is_some_and(|plan| plan.archive);
    let effect = if archives(current) || archives(desired) { Effect::RollingRestart } else { Effect::None };
    [
        change("backup.target", target(current), target(desired), effect, ""),
        change("backup.archive", archive(current), archive(desired), effect, ""),
        change(
            "backup.recoveryPointObjectiveSeconds",
            objective(current),
            objective(desired),
            Effect::None,
            "",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is asked for by changing a field: stop, restart, new credentials.
fn acts(current: &DataServiceSpec, desired: &DataServiceSpec) -> Vec<Change> {
    let flag = |on: bool| Some(on.to_string());
    let stop = if desired.stopped { "nobody can connect until it is started" } else { "" };
    let rotated = "passwords change: applications must read the Secret again";
    [
        change("stopped", flag(current.stopped), flag(desired.stopped), Effect::Restart, stop),
        change(
            "restartedAt",
            current.restarted_at.clone(),
            desired.restarted_at.clone(),
            Effect::RollingRestart,
            "",
        ),
        change(
            "credentialsRotatedAt",
            current.credentials_rotated_at.clone(),
            desired.credentials_rotated_at.clone(),
            Effect::Reload,
            rotated,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A part of a spec as compact JSON; absent when it is empty.
fn json(part: &impl Serialize) -> Option<String> {
    match serde_json::to_value(part).ok()? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{changed, seen, set, spec};
    use crate::{Effect, Plan, Seconds, Seen, catalogue, plan};
    use culvert_resources::BackupPlan;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn fields(plan: &Plan) -> Vec<(&str, Effect)> {
        plan.changes.iter().map(|change| (change.field.as_str(), change.effect)).collect()
    }

    #[test]
    fn the_same_spec_changes_nothing() {
        let plan = changed(&seen(1), |spec| spec.storage.size = Quantity("1024Mi".to_owned()));
        assert_eq!((fields(&plan), plan.summary.as_str()), (vec![], "Nothing changes."));
    }

    #[test]
    fn a_parameter_is_reloaded_or_restarts_as_the_catalogue_says() {
        let plan = changed(&seen(1), set("log_statement", "ddl"));
        assert_eq!(fields(&plan), [("parameters.log_statement", Effect::Reload)]);
        assert_eq!(plan.interruption, None);
        let plan = changed(&seen(1), set("wal_level", "logical"));
        assert_eq!(fields(&plan), [("parameters.wal_level", Effect::RollingRestart)]);
        assert_eq!(plan.interruption, Some(Seconds { low: 5, high: 60 }));
    }

    #[test]
    fn with_a_replica_a_restart_costs_a_switchover() {
        let plan = changed(&seen(2), set("wal_level", "logical"));
        assert_eq!(plan.interruption, Some(Seconds { low: 1, high: 10 }));
        assert!(plan.summary.contains("1 to 10 seconds"), "{}", plan.summary);
    }

    #[test]
    fn the_engines_default_is_no_change() {
        assert_eq!(fields(&changed(&seen(1), set("wal_level", "replica"))), []);
        assert_eq!(fields(&changed(&seen(1), set("statement_timeout", "0"))), []);
    }

    #[test]
    fn another_spelling_is_no_change() {
        assert_eq!(fields(&changed(&seen(1), set("shared_buffers", "131072kB"))), []);
    }

    #[test]
    fn more_memory_changes_what_follows_it() {
        let plan = changed(&seen(1), |spec| spec.resources.memory = Quantity("4Gi".to_owned()));
        let buffers = plan.changes.iter().find(|change| change.field == "parameters.shared_buffers").unwrap();
        assert_eq!((buffers.from.as_deref(), buffers.to.as_deref()), (Some("128MB"), Some("1024MB")));
        assert_eq!(buffers.note, "follows the size of the instance");
    }

    #[test]
    fn a_volume_grows_without_a_restart() {
        let plan = changed(&seen(1), |spec| {
            spec.storage.size = Quantity("2Gi".to_owned());
            spec.parameters.insert("max_slot_wal_keep_size".to_owned(), "256MB".to_owned());
        });
        assert!(fields(&plan).contains(&("storage.size", Effect::Grow)));
        assert_eq!((plan.interruption, plan.faults), (None, vec![]));
    }

    #[test]
    fn a_newer_minor_release_rolls() {
        let mut seen = seen(2);
        seen.available_versions.push("17.12".to_owned());
        let plan = changed(&seen, |spec| spec.version = "17.12".to_owned());
        assert_eq!(fields(&plan), [("version", Effect::RollingRestart)]);
        assert_eq!(
            (plan.changes[0].from.as_deref(), plan.changes[0].to.as_deref()),
            (Some("17.9"), Some("17.12"))
        );
    }

    #[test]
    fn stopping_is_no_interruption_of_seconds() {
        let plan = changed(&seen(1), |spec| spec.stopped = true);
        assert_eq!(
            (plan.interruption, plan.summary.as_str()),
            (None, "All instances stop; the volumes stay.")
        );
    }

    #[test]
    fn another_archive_restarts_and_another_objective_does_not() {
        let backup = |archive, objective| {
            Some(BackupPlan { target: "s3".to_owned(), archive, recovery_point_objective_seconds: objective })
        };
        let mut current = spec("postgresql", "17");
        current.backup = backup(true, 60);
        let mut desired = current.clone();
        desired.backup = backup(true, 120);
        let engine = catalogue().engine("postgresql").unwrap();
        let quiet = plan(engine, Some(&current), &desired, &seen(1));
        assert_eq!(fields(&quiet), [("backup.recoveryPointObjectiveSeconds", Effect::None)]);
        desired.backup = None;
        assert!(
            fields(&plan(engine, Some(&current), &desired, &seen(1)))
                .contains(&("backup.target", Effect::RollingRestart))
        );
    }

    #[test]
    fn a_new_service_shows_what_it_will_be() {
        let engine = catalogue().engine("postgresql").unwrap();
        let plan = plan(engine, None, &spec("postgresql", "17"), &Seen { running_version: None, ..seen(0) });
        assert!(plan.changes.iter().any(|change| change.to.as_deref() == Some("17.9")));
        assert_eq!((plan.interruption, plan.faults), (None, vec![]));
        assert_eq!(plan.summary, "A PostgreSQL 17 is made, with 1 instance and volumes of 1Gi.");
    }

    #[test]
    fn a_plan_is_camel_case_for_the_api() {
        let plan = changed(&seen(1), set("wal_level", "logical"));
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(json["changes"][0]["effect"], "rolling-restart");
        assert_eq!(json["interruption"]["low"], 5);
    }
}
