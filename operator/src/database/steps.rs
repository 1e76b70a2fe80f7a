//! Takes the next step of a change that has an order, and tidies up behind earlier ones.
use std::time::Duration;

use culvert_resources::meta;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use super::children::Parent;
use super::children::stateful_set::TEMPLATE;
use super::make::Made;
use super::order::{self, Asked, Instance, Step};
use super::seen::{Seen, ready};
use crate::reconcile::{Error, Work};

/// Annotation on the Lease: when a switchover was asked for, RFC 3339.
const ASKED_AT: &str = "data.culvert.dev/switchover-asked-at";
/// Annotation on a pod: digest of the configuration that it shall have. A change of it makes the kubelet look at the
/// pod at once, and with it at the ConfigMap, which it otherwise does within a minute or two.
const CONFIG: &str = "data.culvert.dev/config";
/// The volumes of instances that were scaled away stay so long.
const KEPT_AFTER_SCALING: SignedDuration = SignedDuration::from_hours(24);

/// Where a change stands.
pub(super) struct Standing {
    /// The instances.
    pub(super) instances: Vec<Instance>,
    /// What was done in this round.
    pub(super) step: Step,
}

/// Takes one step.
pub(super) async fn take(
    work: &Work,
    parent: &Parent<'_>,
    seen: &Seen,
    made: &Made,
) -> Result<Standing, Error> {
    let spec = &parent.database.spec;
    let wanted = if spec.stopped { 0 } else { spec.topology.replicas };
    let instances = instances(parent, seen, made, wanted);
    let step = if made.waits_for_source {
        Step::Wait("what it begins with is not there yet".to_owned())
    } else {
        order::next(&instances, wanted, asked(seen).as_ref())
    };
    act(work, parent, seen, &step).await?;
    nudge(work, seen, made).await?;
    retain(work, parent, seen).await?;
    Ok(Standing { instances, step })
}

fn instances(parent: &Parent<'_>, seen: &Seen, made: &Made, wanted: i32) -> Vec<Instance> {
    let names = parent.names();
    let ordinals = seen.pods.iter().filter_map(|pod| names.ordinal(&pod.name_any()));
    let count = ordinals.map(|ordinal| ordinal.saturating_add(1)).max().unwrap_or(0).max(wanted);
    (0..count)
        .map(|ordinal| {
            let name = names.pod(ordinal);
            match seen.pods.iter().find(|pod| pod.name_any() == name) {
                Some(pod) => instance(pod, ordinal, seen, made),
                None => Instance { pod: name, ordinal, ..Instance::default() },
            }
        })
        .collect()
}

fn instance(pod: &Pod, ordinal: i32, seen: &Seen, made: &Made) -> Instance {
    let name = pod.name_any();
    let told = seen.told.get(&name);
    Instance {
        ordinal,
        exists: true,
        ending: pod.metadata.deletion_timestamp.is_some(),
        outdated: outdated(pod, told, made),
        ready: ready(pod),
        primary: seen.primary() == Some(name.as_str()),
        synchronous: told.is_some_and(|told| told.synchronous),
        lag: told.and_then(|told| told.lag_bytes),
        pod: name,
    }
}

/// Why a pod has to be restarted.
fn outdated(
    pod: &Pod,
    told: Option<&culvert_resources::instance::InstanceStatus>,
    made: &Made,
) -> Option<&'static str> {
    if pod.annotations().get(TEMPLATE) != Some(&made.template) {
        return Some("its template changed");
    }
    let told = told?;
    let current = told.config_digest.as_deref() == Some(made.config.as_str());
    // A pod that is younger than the change has started with it: another restart would not help. The API server tells
    // whole seconds.
    let changed: Timestamp = made.config_changed.as_ref()?.parse().ok()?;
    let older = pod.creation_timestamp().is_some_and(|created| created.0.as_second() < changed.as_second());
    (current && older && !told.pending_restart.is_empty()).then_some("a parameter waits for a restart")
}

fn asked(seen: &Seen) -> Option<Asked> {
    let lease = seen.lease.as_ref()?;
    let to = lease.annotations().get(meta::SWITCHOVER_TO).filter(|to| !to.is_empty())?.clone();
    let at: Option<Timestamp> = lease.annotations().get(ASKED_AT).and_then(|at| at.parse().ok());
    let since = at.map_or(Duration::ZERO, |at| seen.now.duration_since(at).unsigned_abs());
    Some(Asked { to, since })
}

async fn act(work: &Work, parent: &Parent<'_>, seen: &Seen, step: &Step) -> Result<(), Error> {
    match step {
        Step::Nothing | Step::Wait(_) => Ok(()),
        Step::Restart { pod, why } => {
            let Some(found) = seen.pods.iter().find(|found| found.name_any() == *pod) else { return Ok(()) };
            work.tell(parent.database, "Restarting", &format!("{pod} is restarted: {why}")).await;
            work.delete(found, DeleteParams::default()).await
        }
        Step::Switchover { to } => {
            let Some(lease) = &seen.lease else { return Ok(()) };
            work.tell(parent.database, "Switchover", &format!("{to} is to take over as primary")).await;
            let changes = [(meta::SWITCHOVER_TO, Some(to.clone())), (ASKED_AT, Some(seen.now.to_string()))];
            work.annotate(lease, &changes).await
        }
    }
}

/// Has the kubelet bring a changed configuration at once.
async fn nudge(work: &Work, seen: &Seen, made: &Made) -> Result<(), Error> {
    let late = seen.pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none() && pod.annotations().get(CONFIG) != Some(&made.config)
    });
    for pod in late {
        work.annotate(pod, &[(CONFIG, Some(made.config.clone()))]).await?;
    }
    Ok(())
}

/// Volumes of instances that were scaled away get an end; those that are in use lose it.
async fn retain(work: &Work, parent: &Parent<'_>, seen: &Seen) -> Result<(), Error> {
    for claim in &seen.claims {
        match due(claim, parent, seen.now) {
            Some(Due::Set(at)) => work.annotate(claim, &[(meta::PURGE_AFTER, Some(at.to_string()))]).await?,
            Some(Due::Clear) => work.annotate(claim, &[(meta::PURGE_AFTER, None)]).await?,
            None => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Set(Timestamp),
    Clear,
}

fn due(claim: &PersistentVolumeClaim, parent: &Parent<'_>, now: Timestamp) -> Option<Due> {
    let ordinal = (0..16).find(|ordinal| parent.names().claim(*ordinal) == claim.name_any())?;
    let has = claim.annotations().contains_key(meta::PURGE_AFTER);
    match (ordinal < parent.database.spec.topology.replicas, has) {
        (true, true) => Some(Due::Clear),
        (false, false) => now.checked_add(KEPT_AFTER_SCALING).ok().map(Due::Set),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::children::tests::{database, parent};
    use super::*;
    use culvert_resources::instance::InstanceStatus;

    fn made() -> Made {
        Made {
            template: "t".to_owned(),
            config: "c".to_owned(),
            config_changed: Some("2026-11-25T12:00:00.7Z".to_owned()),
            passwords: String::new(),
            certificate_ends: None,
            cannot_grow: None,
            waits_for_source: false,
        }
    }

    fn pod(template: &str, created: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": "orders-0", "creationTimestamp": created, "annotations": {TEMPLATE: template},
        }}))
        .unwrap()
    }

    fn pending(config: &str) -> InstanceStatus {
        InstanceStatus {
            config_digest: Some(config.to_owned()),
            pending_restart: vec!["max_connections".to_owned()],
            ..InstanceStatus::default()
        }
    }

    #[test]
    fn a_pod_is_restarted_for_a_template_and_for_a_parameter() {
        let (old, young) = ("2026-11-25T11:00:00Z", "2026-11-25T12:00:00Z");
        assert_eq!(outdated(&pod("other", old), None, &made()), Some("its template changed"));
        assert_eq!(outdated(&pod("t", old), None, &made()), None);
        assert!(outdated(&pod("t", old), Some(&pending("c")), &made()).is_some());
        assert_eq!(
            outdated(&pod("t", old), Some(&pending("old")), &made()),
            None,
            "it has not seen the change yet"
        );
        assert_eq!(
            outdated(&pod("t", young), Some(&pending("c")), &made()),
            None,
            "never twice for one change"
        );
    }

    #[test]
    fn volumes_that_were_scaled_away_get_an_end_and_lose_it_again() {
        let database = database(|spec| spec.topology.replicas = 1);
        let parent = parent(&database);
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let claim = |name: &str, ends: bool| -> PersistentVolumeClaim {
            let notes =
                if ends { serde_json::json!({meta::PURGE_AFTER: "x"}) } else { serde_json::json!({}) };
            serde_json::from_value(serde_json::json!({"metadata": {"name": name, "annotations": notes}}))
                .unwrap()
        };
        assert_eq!(due(&claim("data-orders-0", false), &parent, now), None);
        assert_eq!(due(&claim("data-orders-0", true), &parent, now), Some(Due::Clear));
        assert!(matches!(due(&claim("data-orders-1", false), &parent, now), Some(Due::Set(_))));
        assert_eq!(due(&claim("data-orders-1", true), &parent, now), None, "its end does not move");
        assert_eq!(due(&claim("data-orders-x-0", false), &parent, now), None);
    }
}
