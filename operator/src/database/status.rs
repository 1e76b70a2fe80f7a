//! What is reported of a database: members, conditions, and the deepest cause.
use std::collections::BTreeMap;

use culvert_resources::instance::InstanceStatus;
use culvert_resources::{ConditionType, DatabaseStatus, Member, Role, WhoCanFix, Why};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{ListParams, LogParams};

use super::children::Parent;
use super::children::pod::ENGINE;
use super::make::{Made, source};
use super::order::Step;
use super::seen::{Seen, ready};
use super::steps::Standing;
use super::volumes::FULL;
use crate::reconcile::{Conditions, Error, Verdict, Work};
use crate::why::{self, Snapshot};

/// A certificate that ends sooner than this was not renewed when it should have been.
const CERTIFICATE_ENDS_SOON: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Reports, and says whether all is as it shall be.
pub(super) async fn report(
    work: &Work,
    parent: &Parent<'_>,
    seen: &Seen,
    made: Result<&Made, &Error>,
    standing: Option<&Standing>,
) -> Result<bool, Error> {
    let database = parent.database;
    let before = database.status.as_ref().map_or(&[][..], |status| status.conditions.as_slice());
    let mut conditions = Conditions::new(before, database.metadata.generation, seen.now);
    let facts = Facts::new(parent, seen, made, standing);
    let why = facts.cause(work).await;
    facts.conditions(&mut conditions, why.as_ref());
    work.tell_changes(database, &conditions).await;
    let settled = facts.settled(&conditions);
    work.status(database, &facts.status(why, conditions.done())).await?;
    Ok(settled)
}

struct Facts<'a> {
    parent: &'a Parent<'a>,
    seen: &'a Seen,
    made: Result<&'a Made, &'a Error>,
    standing: Option<&'a Standing>,
    wanted: i32,
    ready: i32,
}

impl<'a> Facts<'a> {
    fn new(
        parent: &'a Parent<'a>,
        seen: &'a Seen,
        made: Result<&'a Made, &'a Error>,
        standing: Option<&'a Standing>,
    ) -> Self {
        let spec = &parent.database.spec;
        let wanted = if spec.stopped { 0 } else { spec.topology.replicas };
        let ready = i32::try_from(seen.pods.iter().filter(|pod| ready(pod)).count()).unwrap_or(i32::MAX);
        Self { parent, seen, made, standing, wanted, ready }
    }

    fn told(&self) -> impl Iterator<Item = &InstanceStatus> {
        self.seen.told.values()
    }

    /// Whether the primary's own probe, which logs in and writes, succeeds.
    fn available(&self) -> bool {
        let primary =
            self.seen.primary().and_then(|name| self.seen.pods.iter().find(|pod| pod.name_any() == name));
        let serves = |pod: &Pod| {
            let told = self.seen.told.get(&pod.name_any());
            ready(pod) && told.is_none_or(|told| self.parent.driver.observe(told))
        };
        primary.is_some_and(serves)
    }

    async fn cause(&self, work: &Work) -> Option<Why> {
        if let Err(error) = self.made {
            return Some(error.status().and_then(why::refusal).unwrap_or_else(|| {
                why::why(
                    "operator_failed",
                    WhoCanFix::PlatformOperator,
                    "The operator could not do all that it had to; it tries again.",
                    "If this stays, read the operator's log.",
                )
            }));
        }
        if let Some(class) = self.made.ok().and_then(|made| made.cannot_grow.as_deref()) {
            return Some(cannot_grow(class));
        }
        if self.made.is_ok_and(|made| made.waits_for_source) {
            return Some(self.waits_for_source());
        }
        if self.wanted == 0 || (self.ready >= self.wanted && self.available()) {
            // It serves, and may still refuse writes on a full volume, or have a wrong clock.
            return why::problem(&self.seen.told).or_else(|| self.nearly_full());
        }
        let (events, logs) =
            (events(work, self.parent).await, logs(work, self.parent, &self.seen.pods).await);
        let missing = usize::try_from(self.wanted).unwrap_or(0).saturating_sub(self.seen.pods.len());
        why::deepest(&Snapshot {
            pods: &self.seen.pods,
            events: &events,
            claims: &self.seen.claims,
            stateful_set: self.parent.name,
            missing,
            told: &self.seen.told,
            logs: &logs,
            now: self.seen.now,
        })
    }

    fn waits_for_source(&self) -> Why {
        let restore = source(self.parent).map_or("", |source| source.restore.as_str());
        why::why(
            "waits_for_restore",
            WhoCanFix::Nobody,
            format!("It begins when the restore {restore} has found its backup."),
            "Look at that Restore, should this take longer than a minute.",
        )
    }

    fn nearly_full(&self) -> Option<Why> {
        self.seen.fills().into_iter().any(|fill| fill.below(FULL)).then(|| {
            why::why(
                "disk_nearly_full",
                WhoCanFix::Developer,
                format!("Less than {FULL} % of a volume is free."),
                "Raise spec.storage.size, or set spec.storage.growthLimit so that it grows by itself.",
            )
        })
    }

    fn conditions(&self, conditions: &mut Conditions<'_>, why: Option<&Why>) {
        use ConditionType as C;
        match (self.made, why) {
            (Err(_), Some(why)) => conditions.not(C::Provisioned, why),
            (Err(error), None) => conditions.say(C::Provisioned, false, "Failed", error.to_string()),
            (Ok(_), _) => conditions.say(C::Provisioned, true, "Applied", "All objects exist as they shall."),
        };
        self.availability(conditions, why);
        self.progress(conditions);
        self.storage(conditions, why);
        self.secrets(conditions);
    }

    fn availability(&self, conditions: &mut Conditions<'_>, why: Option<&Why>) {
        let kind = ConditionType::Available;
        if self.wanted == 0 {
            conditions.say(kind, false, "Stopped", "No instance runs, as it was asked for.");
        } else if self.available() {
            conditions.say(kind, true, "Serving", "A login and a write succeed.");
        } else if let Some(why) = why {
            conditions.not(kind, why);
        } else {
            conditions.say(kind, false, "NoPrimary", "No instance is primary yet.");
        }
    }

    fn progress(&self, conditions: &mut Conditions<'_>) {
        let (progressing, reason, message) = match self.standing.map(|standing| &standing.step) {
            None => (true, "Blocked", "The objects of the database could not all be made.".to_owned()),
            Some(Step::Nothing) if self.wanted == 0 && !self.seen.pods.is_empty() => {
                (true, "Stopping", "Instances are ending.".to_owned())
            }
            Some(Step::Nothing) => (false, "Settled", "Nothing is being changed.".to_owned()),
            Some(Step::Wait(what)) => (true, "Waiting", what.clone()),
            Some(Step::Restart { pod, why }) => (true, "Restarting", format!("{pod} is restarted: {why}.")),
            Some(Step::Switchover { to }) => (true, "Switchover", format!("{to} takes over as primary.")),
        };
        conditions.say(ConditionType::Progressing, progressing, reason, message);
        let outdated = self.outdated();
        let current = outdated.is_empty() && self.made.is_ok() && !progressing;
        let message = match outdated.first() {
            Some(pod) => format!("{pod} does not run what was released."),
            None if current => "All instances run what was released.".to_owned(),
            None => "A change is under way.".to_owned(),
        };
        let reason = if current { "Current" } else { "Changing" };
        conditions.say(ConditionType::UpToDate, current, reason, message);
    }

    /// Pods that do not have template or configuration in force.
    fn outdated(&self) -> Vec<String> {
        let Some(standing) = self.standing else { return Vec::new() };
        let config = self.made.ok().map(|made| made.config.as_str());
        let late = |pod: &str| {
            let told = self.seen.told.get(pod);
            told.is_some_and(|told| told.config_digest.is_some() && told.config_digest.as_deref() != config)
        };
        let old =
            standing.instances.iter().filter(|one| one.outdated.is_some() || (one.exists && late(&one.pod)));
        old.map(|one| one.pod.clone()).collect()
    }

    fn storage(&self, conditions: &mut Conditions<'_>, why: Option<&Why>) {
        let kind = ConditionType::StorageHealthy;
        let about_storage =
            |why: &&Why| ["volume", "disk", "no_storage_class"].iter().any(|word| why.code.starts_with(word));
        match why.filter(about_storage) {
            Some(why) => conditions.not(kind, why),
            None if self.seen.fills().is_empty() => {
                conditions.say(kind, Verdict::Unknown, "NotMeasured", "No instance has told how full it is.")
            }
            None => conditions.say(kind, true, "Roomy", "Every volume has room."),
        };
    }

    fn secrets(&self, conditions: &mut Conditions<'_>) {
        let Ok(made) = self.made else { return };
        let known: Vec<&str> = self.told().filter_map(|told| told.credentials_digest.as_deref()).collect();
        let kind = ConditionType::CredentialsValid;
        if known.is_empty() {
            conditions.say(
                kind,
                Verdict::Unknown,
                "NotTold",
                "No instance has told which passwords are in force.",
            );
        } else if known.iter().all(|digest| *digest == made.passwords) {
            conditions.say(kind, true, "InForce", "The passwords in the Secrets are in force.");
        } else {
            conditions.say(kind, false, "Rotating", "Instances are taking new passwords.");
        }
        let ends: Option<Timestamp> = made.certificate_ends.as_ref().and_then(|ends| ends.parse().ok());
        let soon = ends.is_none_or(|ends| ends.duration_since(self.seen.now) < CERTIFICATE_ENDS_SOON);
        let message = format!("The certificate ends at {}.", made.certificate_ends.as_deref().unwrap_or("?"));
        conditions.say(ConditionType::TlsReady, !soon, if soon { "EndsSoon" } else { "Issued" }, message);
    }

    fn settled(&self, conditions: &Conditions<'_>) -> bool {
        let available = self.wanted == 0 || conditions.holds(ConditionType::Available);
        available && conditions.holds(ConditionType::UpToDate) && self.ready >= self.wanted
    }

    fn status(
        &self,
        why: Option<Why>,
        conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    ) -> DatabaseStatus {
        let primary = self.seen.primary().map(str::to_owned);
        let leads = primary.as_ref().and_then(|primary| self.seen.told.get(primary));
        let old = self.parent.database.status.as_ref();
        let rotated = self.parent.database.spec.credentials_rotated_at.clone();
        let in_force = conditions.iter().any(|condition| {
            condition.type_ == ConditionType::CredentialsValid.as_str() && condition.status == "True"
        });
        let pending: BTreeMap<&String, ()> =
            self.told().flat_map(|told| told.pending_restart.iter()).map(|name| (name, ())).collect();
        DatabaseStatus {
            observed_generation: self.parent.database.metadata.generation,
            primary,
            replicas: i32::try_from(self.seen.pods.len()).ok(),
            ready_replicas: Some(format!("{}/{}", self.ready, self.wanted)),
            members: self.seen.pods.iter().map(|pod| self.member(pod)).collect(),
            running_version: self
                .running_version()
                .or_else(|| old.and_then(|old| old.running_version.clone())),
            pending_restart: pending.into_keys().cloned().collect(),
            credentials_rotated_at: if in_force {
                rotated
            } else {
                old.and_then(|old| old.credentials_rotated_at.clone())
            },
            archived_until: leads.and_then(|told| told.archived_until.clone()).map(to_the_minute),
            data_bytes: leads.and_then(|told| told.data_bytes).map(|bytes| rounded_up(bytes, 1 << 20)),
            why,
            conditions,
        }
    }

    /// The version that all instances run, when they all told the same.
    fn running_version(&self) -> Option<String> {
        let mut versions = self.told().filter_map(|told| told.version.clone());
        let first = versions.next()?;
        versions.all(|version| version == first).then_some(first)
    }

    fn member(&self, pod: &Pod) -> Member {
        let name = pod.name_any();
        let told = self.seen.told.get(&name);
        let role = match told.map(|told| told.role.as_str()) {
            Some("primary") => Some(Role::Primary),
            Some("replica") => Some(Role::Replica),
            _ => None,
        };
        Member {
            role,
            ready: ready(pod),
            version: told.and_then(|told| told.version.clone()),
            lag_bytes: told.and_then(|told| told.lag_bytes).map(|bytes| rounded_up(bytes, 1 << 20)),
            free_bytes: told.and_then(|told| told.free_bytes).map(|bytes| bytes.div_euclid(1 << 26) << 26),
            pod: name,
        }
    }
}

/// Numbers that change all the time are rounded: each change of a status wakes everybody who watches it.
fn rounded_up(bytes: i64, unit: i64) -> i64 {
    let rest = bytes.rem_euclid(unit);
    if rest == 0 { bytes } else { bytes.saturating_add(unit - rest) }
}

fn to_the_minute(time: String) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => {
            let second = time.as_second();
            Timestamp::from_second(second - second.rem_euclid(60))
                .map_or_else(|_| String::new(), |time| time.to_string())
        }
        Err(_) => String::new(),
    }
}

fn cannot_grow(class: &str) -> Why {
    why::why(
        "volume_cannot_grow",
        WhoCanFix::PlatformOperator,
        format!("The storage class {class} does not let volumes grow."),
        "Set allowVolumeExpansion on it, or restore a backup into a new service with larger volumes.",
    )
}

/// Events of the namespace. Without them a cause is less deep, and that is all.
async fn events(work: &Work, parent: &Parent<'_>) -> Vec<Event> {
    let wanted = ListParams::default().fields("type=Warning").limit(500);
    match work.api::<Event>(parent.namespace).list(&wanted).await {
        Ok(found) => found.items,
        Err(error) => {
            tracing::debug!(error = %error, "events cannot be read");
            Vec::new()
        }
    }
}

/// The last line of each container that crashes.
async fn logs(work: &Work, parent: &Parent<'_>, pods: &[Pod]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for pod in pods.iter().filter(|pod| crashed(pod)) {
        let wanted = LogParams {
            container: Some(ENGINE.to_owned()),
            previous: true,
            tail_lines: Some(1),
            limit_bytes: Some(4096),
            ..LogParams::default()
        };
        // A container that was never started has no log.
        if let Ok(text) = work.api::<Pod>(parent.namespace).logs(&pod.name_any(), &wanted).await {
            lines.insert(pod.name_any(), text);
        }
    }
    lines
}

fn crashed(pod: &Pod) -> bool {
    let statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    statuses.into_iter().any(|status| status.restart_count > 0 && !status.ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_move_all_the_time_are_rounded() {
        assert_eq!((rounded_up(0, 1 << 20), rounded_up(1, 1 << 20)), (0, 1 << 20));
        assert_eq!(to_the_minute("2026-11-25T12:00:59.5Z".to_owned()), "2026-11-25T12:00:00Z");
    }
}
