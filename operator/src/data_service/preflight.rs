//! Whether what a new service needs is in the cluster.
use culvert_engines::{Amount, Engine};
use culvert_resources::{DataPlaneSpec, DataServiceSpec, WhoCanFix, Why};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt as _;

use super::retained;
use super::surroundings::Surroundings;
use crate::data_plane::default_class;
use crate::why::{no_class, why};

/// What is missing first.
pub(super) fn missing(
    name: &str,
    spec: &DataServiceSpec,
    engine: &Engine,
    version: &str,
    around: &Surroundings,
) -> Option<Why> {
    let plane = around.plane.as_ref().map(|plane| &plane.spec);
    runner(plane)
        .or_else(|| storage_class(spec, plane, around))
        .or_else(|| retained::obstacle(name, engine, version, spec.source.is_some(), &around.claims))
        .or_else(|| around.limits.iter().find_map(|range| limit(spec, range)))
        .or_else(|| around.quotas.iter().find_map(|range| quota(spec, range)))
}

fn runner(plane: Option<&DataPlaneSpec>) -> Option<Why> {
    let named = plane.and_then(|plane| plane.runner_image.as_deref()).is_some_and(|image| !image.is_empty());
    (!named).then(|| {
        why(
            "no_data_plane",
            WhoCanFix::PlatformOperator,
            "The DataPlane of this cluster is missing or names no image of the runner.",
            "Install or upgrade the operator's chart, which makes the DataPlane.",
        )
    })
}

fn storage_class(
    spec: &DataServiceSpec,
    plane: Option<&DataPlaneSpec>,
    around: &Surroundings,
) -> Option<Why> {
    if let Some(named) = &spec.storage.class {
        let there = around.classes.iter().any(|class| class.name_any() == *named);
        return (!there).then(|| no_class(named));
    }
    let default = plane.and_then(|plane| default_class(plane, &around.classes));
    default.is_none().then(|| {
        why(
            "no_storage_class",
            WhoCanFix::PlatformOperator,
            "The cluster has no default storage class, and the service names none.",
            "Mark a storage class as default, or name one in spec.storage.class of a new service.",
        )
    })
}

fn limit(spec: &DataServiceSpec, range: &LimitRange) -> Option<Why> {
    let name = range.name_any();
    let items = range.spec.iter().flat_map(|spec| spec.limits.iter());
    items.into_iter().find_map(|item| {
        let (kind, asked) = match item.type_.as_str() {
            "Container" | "Pod" => ("memory", &spec.resources.memory),
            "PersistentVolumeClaim" => ("storage", &spec.storage.size),
            _ => return None,
        };
        let most = item.max.as_ref()?.get(kind)?;
        (amount(asked)? > amount(most)?).then(|| {
            why(
                "limit_range",
                WhoCanFix::Developer,
                format!("The LimitRange {name} allows {} of {kind}, and {} are asked for.", most.0, asked.0),
                "Ask for less, or have the limit raised.",
            )
        })
    })
}

fn amount(quantity: &Quantity) -> Option<i64> {
    // In thousandths, so that CPU and bytes compare alike; beyond that an i64 saturates, which compares right too.
    Amount::of(quantity).ok().map(Amount::thousandths)
}

fn quota(spec: &DataServiceSpec, quota: &ResourceQuota) -> Option<Why> {
    let status = quota.status.as_ref()?;
    let (hard, used) = (status.hard.as_ref()?, status.used.as_ref());
    let count = i64::from(spec.topology.replicas);
    needs(spec).into_iter().find_map(|(key, each)| {
        let hard = hard.get(key)?;
        let used = used.and_then(|used| used.get(key)).and_then(amount).unwrap_or(0);
        let (most, wanted) = (amount(hard)?, each.saturating_mul(count));
        (used.saturating_add(wanted) > most).then(|| {
            why(
                "quota",
                WhoCanFix::PlatformOperator,
                format!(
                    "The quota {} allows {} of {key}, and not enough of it is left for {count} instances.",
                    quota.name_any(),
                    hard.0
                ),
                "Raise the quota, or make this or another service smaller.",
            )
        })
    })
}

/// What one instance takes of a quota, in thousandths.
fn needs(spec: &DataServiceSpec) -> Vec<(&'static str, i64)> {
    let cpu = amount(&spec.resources.cpu).unwrap_or(0);
    let memory = amount(&spec.resources.memory).unwrap_or(0);
    let storage = amount(&spec.storage.size).unwrap_or(0);
    vec![
        ("pods", 1000),
        ("cpu", cpu),
        ("requests.cpu", cpu),
        ("memory", memory),
        ("requests.memory", memory),
        ("limits.memory", memory),
        ("persistentvolumeclaims", 1000),
        ("requests.storage", storage),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_engines::catalogue;
    use serde_json::json;

    fn around(extra: serde_json::Value) -> Surroundings {
        let list = |key: &str| extra.get(key).cloned().unwrap_or(json!([]));
        Surroundings {
            plane: Some(
                serde_json::from_value(
                    json!({"apiVersion": "data.culvert.dev/v1alpha1", "kind": "DataPlane",
                "metadata": {"name": "default"}, "spec": {"runnerImage": "r"}}),
                )
                .unwrap(),
            ),
            classes: serde_json::from_value(json!([{"metadata": {"name": "std", "annotations":
                {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}]))
            .unwrap(),
            quotas: serde_json::from_value(list("quotas")).unwrap(),
            limits: serde_json::from_value(list("limits")).unwrap(),
            ..Surroundings::default()
        }
    }

    fn spec(json: serde_json::Value) -> DataServiceSpec {
        serde_json::from_value(json).unwrap()
    }

    fn code(spec: &DataServiceSpec, around: &Surroundings) -> Option<String> {
        let engine = catalogue().engine("postgresql").unwrap();
        missing("orders", spec, engine, "15.20", around).map(|why| why.code)
    }

    #[test]
    fn what_is_missing_is_named() {
        let plain = spec(json!({"engine": "postgresql", "version": "15", "topology": {"replicas": 2}}));
        assert_eq!(code(&plain, &around(json!({}))), None);
        let quota = |key: &str, hard: &str, used: &str| {
            around(
                json!({"quotas": [{"metadata": {"name": "q"}, "status": {"hard": {key: hard}, "used": {key: used}}}]}),
            )
        };
        assert_eq!(code(&plain, &quota("requests.memory", "1Gi", "1Mi")).as_deref(), Some("quota"));
        assert_eq!(code(&plain, &quota("requests.memory", "1Gi", "0")), None);
        assert_eq!(code(&plain, &quota("pods", "10", "9")).as_deref(), Some("quota"));
        let small = around(json!({"limits": [{"metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "max": {"memory": "256Mi"}}]}}]}));
        assert_eq!(code(&plain, &small).as_deref(), Some("limit_range"));
        let named = spec(json!({"engine": "postgresql", "version": "15", "storage": {"class": "fast"}}));
        assert_eq!(code(&named, &around(json!({}))).as_deref(), Some("no_storage_class"));
        assert_eq!(code(&plain, &Surroundings::default()).as_deref(), Some("no_data_plane"));
    }
}
