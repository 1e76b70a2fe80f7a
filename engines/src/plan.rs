//! The plan: what a change of a spec alters, costs and risks, told before it is applied.

use culvert_resources::DataServiceSpec;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Engine, Seconds};
use crate::fault::Fault;
use crate::version::Version;
use crate::{diff, risks};

/// What is known of the running service and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Exact version that runs; `None` when nothing runs or nothing is known.
    pub running_version: Option<String>,
    /// Exact versions that the cluster has images of.
    pub available_versions: Vec<String>,
    /// Whether volumes of the service's class can grow; `None` when that is not known.
    pub can_expand: Option<bool>,
    /// Instances that run.
    pub replicas: i32,
}

/// What a change alters, costs and risks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// All of it in one sentence.
    pub summary: String,
    /// What is altered, field by field.
    pub changes: Vec<Change>,
    /// Seconds for which writes are not possible; `None` when they always are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interruption: Option<Seconds>,
    /// Why it cannot be done; nothing is altered while there is one.
    pub faults: Vec<Fault>,
    /// What can be done and may surprise.
    pub warnings: Vec<String>,
}

/// One altered field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Path below `spec`, such as `parameters.work_mem`.
    pub field: String,
    /// Value before; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Value afterwards; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What it costs.
    pub effect: Effect,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a change costs, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing stops.
    None,
    /// The running engine takes it.
    Reload,
    /// Volumes grow while the engine runs.
    Grow,
    /// Instances restart one after the other; writes stop while another becomes the primary.
    RollingRestart,
    /// All instances stop.
    Restart,
    /// It is made, or made anew.
    Recreate,
}

/// What changing `current` (`None`: nothing yet) to `desired` alters, costs and risks.
#[must_use]
pub fn plan(
    engine: &Engine,
    current: Option<&DataServiceSpec>,
    desired: &DataServiceSpec,
    seen: &Seen,
) -> Plan {
    let mut faults = engine.check(desired);
    let version = engine.resolve_version(&desired.version, &seen.available_versions);
    let mut changes = Vec::new();
    let mut warnings = warnings_of(engine, desired, version.as_deref().ok());
    match (&version, faults.iter().any(|fault| fault.field == "spec.version")) {
        (Err(fault), false) if !runs(desired, seen) => faults.push(fault.clone()),
        _ => {}
    }
    if let Some(current) = current {
        faults.extend(risks::refused(engine, current, desired, seen, version.as_deref().ok()));
        changes = diff::changes(engine, current, desired, seen, version.as_deref().ok());
        warnings.extend(risks::warnings(engine, current, desired, seen));
    } else {
        changes.extend(created(engine, desired, version.as_deref().ok()));
    }
    let interruption = interruption(engine, &changes, seen, current, desired);
    let summary = summary(engine, &changes, interruption, &faults, current, desired);
    Plan { summary, changes, interruption, faults, warnings }
}

/// Whether what runs already is what is wished, so that an image that was taken away stops no other change.
fn runs(desired: &DataServiceSpec, seen: &Seen) -> bool {
    let running = seen.running_version.as_deref().and_then(Version::parse);
    running.zip(Version::parse(&desired.version)).is_some_and(|(running, wanted)| running.is_of(&wanted))
}

fn created(engine: &Engine, desired: &DataServiceSpec, version: Option<&str>) -> Vec<Change> {
    let new = |field: &str, to: String| Change {
        field: field.to_owned(),
        from: None,
        to: Some(to),
        effect: Effect::Recreate,
        note: String::new(),
    };
    let mut changes = vec![
        new("engine", engine.name.clone()),
        new("version", version.unwrap_or(&desired.version).to_owned()),
        new("topology.replicas", desired.topology.replicas.to_string()),
        new("resources.cpu", desired.resources.cpu.0.clone()),
        new("resources.memory", desired.resources.memory.0.clone()),
        new("storage.size", desired.storage.size.0.clone()),
    ];
    let parameters = engine.resolve_parameters(desired);
    changes.extend(parameters.into_iter().map(|(name, value)| new(&format!("parameters.{name}"), value)));
    changes
}

fn warnings_of(engine: &Engine, desired: &DataServiceSpec, version: Option<&str>) -> Vec<String> {
    let mut warnings = Vec::new();
    if desired.topology.replicas == 1 {
        warnings.push("With one instance, writes stop while it restarts or its node is away.".to_owned());
    }
    match &desired.backup {
        None => warnings.push("No backup target is named: nothing is backed up by itself.".to_owned()),
        Some(backup) if backup.archive && !engine.supports.archive => warnings.push(format!(
            "{} has no log archive: only the backups themselves can be restored, no time between them.",
            engine.title
        )),
        Some(_) => {}
    }
    if desired.topology.synchronous && desired.topology.replicas == 2 {
        warnings
            .push("With 2 instances and synchronous replication, writes wait while one is away.".to_owned());
    }
    let release = engine.releases.iter().find(|release| Some(release.version.as_str()) == version);
    if let Some(release) = release.filter(|release| !release.notes.is_empty()) {
        warnings.push(format!("{} {}: {}", engine.title, release.version, release.notes));
    }
    warnings
}

fn interruption(
    engine: &Engine,
    changes: &[Change],
    seen: &Seen,
    current: Option<&DataServiceSpec>,
    desired: &DataServiceSpec,
) -> Option<Seconds> {
    let current = current?;
    if current.stopped || desired.stopped {
        return None;
    }
    match changes.iter().map(|change| change.effect).max()? {
        Effect::None | Effect::Reload | Effect::Grow => None,
        Effect::RollingRestart if seen.replicas >= 2 => Some(engine.downtime.switchover),
        Effect::RollingRestart | Effect::Restart | Effect::Recreate => Some(engine.downtime.restart),
    }
}

fn summary(
    engine: &Engine,
    changes: &[Change],
    interruption: Option<Seconds>,
    faults: &[Fault],
    current: Option<&DataServiceSpec>,
    desired: &DataServiceSpec,
) -> String {
    if let Some(fault) = faults.first() {
        let more = faults.len() - 1;
        let rest = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        return format!("This cannot be done: {}{rest}.", fault.message.trim_end_matches('.'));
    }
    let Some(current) = current else {
        let (n, size) = (desired.topology.replicas, &desired.storage.size.0);
        let instances = if n == 1 { "1 instance".to_owned() } else { format!("{n} instances") };
        return format!(
            "A {} {} is made, with {instances} and volumes of {size}.",
            engine.title, desired.version
        );
    };
    match (changes.iter().map(|change| change.effect).max(), current.stopped, desired.stopped) {
        (None, ..) => "Nothing changes.".to_owned(),
        (_, false, true) => "All instances stop; the volumes stay.".to_owned(),
        (_, true, false) => "The instances start again.".to_owned(),
        (_, true, true) => "The change takes effect when the service is started.".to_owned(),
        (Some(effect), ..) => costs(effect, interruption),
    }
}

fn costs(effect: Effect, interruption: Option<Seconds>) -> String {
    let what = match effect {
        Effect::None => "Nothing restarts",
        Effect::Reload => "The running engine takes the change; nothing restarts",
        Effect::Grow => "The volumes grow while the engine runs",
        Effect::RollingRestart => "Each instance restarts, one after the other",
        Effect::Restart | Effect::Recreate => "All instances restart",
    };
    interruption.map_or_else(
        || format!("{what}."),
        |Seconds { low, high }| format!("{what}; writes stop for about {low} to {high} seconds."),
    )
}
