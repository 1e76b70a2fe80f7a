//! Why a volume is not there.
use culvert_resources::{WhoCanFix, Why};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use super::{Snapshot, event, line, refusal, seen_in, why};

pub(super) fn cause(seen: &Snapshot<'_>) -> Option<Why> {
    seen.claims.iter().find_map(|claim| {
        let found = match phase(claim) {
            Some("Lost") => Some(lost()),
            Some("Pending") | None => pending(seen, claim),
            _ => resize(seen, claim),
        };
        found.map(|why| seen_in(why, "PersistentVolumeClaim", &claim.name_any()))
    })
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

fn lost() -> Why {
    why(
        "volume_lost",
        WhoCanFix::PlatformOperator,
        "The volume behind the claim is gone.",
        "Bring the volume back, or restore a backup into a new service.",
    )
}

fn pending(seen: &Snapshot<'_>, claim: &PersistentVolumeClaim) -> Option<Why> {
    let reasons = ["ProvisioningFailed", "FailedBinding"];
    let message = event(seen, "PersistentVolumeClaim", &claim.name_any(), &reasons)?.message.clone()?;
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
    if message.contains("storageclass") && message.contains("not found") {
        return Some(no_class(&class));
    }
    if message.contains("no persistent volumes available") && class.is_empty() {
        return Some(why(
            "no_storage_class",
            WhoCanFix::PlatformOperator,
            "The cluster has no default storage class, and the service names none.",
            "Mark a storage class as default, or name one in spec.storage.class of a new service.",
        ));
    }
    Some(refusal::of_text(&message).unwrap_or_else(|| {
        why(
            "volume_not_made",
            WhoCanFix::PlatformOperator,
            format!("The storage class {class} does not provide a volume: {}.", line(&message)),
            "Look at the provisioner of that storage class.",
        )
    }))
}

/// A storage class that is named and not there.
pub(crate) fn no_class(class: &str) -> Why {
    why(
        "no_storage_class",
        WhoCanFix::PlatformOperator,
        format!("There is no storage class {class} in the cluster."),
        "Create it, or name another one in a new service.",
    )
}

fn resize(seen: &Snapshot<'_>, claim: &PersistentVolumeClaim) -> Option<Why> {
    let waits = |name: &str| {
        let conditions = claim.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        conditions.into_iter().any(|condition| condition.type_ == name && condition.status == "True")
    };
    if !waits("Resizing") && !waits("ControllerResizeError") && !waits("NodeResizeError") {
        return None;
    }
    let failed = event(seen, "PersistentVolumeClaim", &claim.name_any(), &["VolumeResizeFailed"])?;
    Some(why(
        "volume_does_not_grow",
        WhoCanFix::PlatformOperator,
        format!("The volume does not grow: {}.", line(failed.message.as_deref().unwrap_or_default())),
        "Look at the provisioner of the storage class, and at the quota of the storage behind it.",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cause, event};
    use super::*;

    fn claim(phase: &str, class: Option<&str>) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "data-orders-0"}, "spec": {"storageClassName": class}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn told(claim: PersistentVolumeClaim, reason: &str, message: &str) -> Option<String> {
        let event = event("PersistentVolumeClaim", "data-orders-0", reason, message);
        cause(&[], &[claim], &[event], 0).map(|why| why.code)
    }

    #[test]
    fn a_missing_class_is_named_and_a_missing_default_too() {
        let named = claim("Pending", Some("fast"));
        let code = told(named, "ProvisioningFailed", "storageclass.storage.k8s.io \"fast\" not found");
        assert_eq!(code.as_deref(), Some("no_storage_class"));
        let none = claim("Pending", None);
        let message = "no persistent volumes available for this claim and no storage class is set";
        assert_eq!(told(none, "FailedBinding", message).as_deref(), Some("no_storage_class"));
    }

    #[test]
    fn a_provisioner_is_quoted() {
        let code = told(claim("Pending", Some("fast")), "ProvisioningFailed", "backend is full");
        assert_eq!(code.as_deref(), Some("volume_not_made"));
    }

    #[test]
    fn a_claim_that_waits_for_its_pod_is_no_cause() {
        let code = told(claim("Pending", Some("fast")), "WaitForFirstConsumer", "waiting");
        assert_eq!(code, None);
        assert_eq!(told(claim("Bound", Some("fast")), "ProvisioningFailed", "long ago"), None);
    }

    #[test]
    fn a_lost_volume_is_told() {
        assert_eq!(told(claim("Lost", None), "x", "").as_deref(), Some("volume_lost"));
    }
}
