//! Ends volumes whose time is over.
use std::time::Duration;

use culvert_resources::{DataService, meta};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::database::Names;
use crate::reconcile::{Error, Work};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Looks from time to time until `stop`.
pub(super) async fn run(work: Work, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = once(&work).await {
            tracing::warn!(error = %error, "retained volumes cannot be looked through");
        }
    }
}

async fn once(work: &Work) -> Result<(), Error> {
    let claims = Api::<PersistentVolumeClaim>::all(work.world().client());
    let ours = ListParams::default().labels(&format!("{}=culvert", meta::MANAGED_BY));
    let found = claims.list(&ours).await.map_err(|error| Error::kube("listing claims", error))?;
    let now = work.world().now();
    for claim in found.items.iter().filter(|claim| over(claim, now)) {
        let (Some(service), Some(namespace)) = (claim.labels().get(meta::SERVICE), claim.namespace()) else {
            continue;
        };
        let living = work.find::<DataService>(&namespace, service).await?;
        if used(claim, service, &namespace, living.as_ref()) {
            continue;
        }
        tracing::info!(claim = claim.name_any(), namespace, "a retained volume is deleted, its time is over");
        work.delete(claim, DeleteParams::default()).await?;
        if living.is_none() {
            forget_leader(work, service, &namespace, &found.items, &claim.name_any()).await?;
        }
    }
    Ok(())
}

/// Whether the time of a retained claim is over.
fn over(claim: &PersistentVolumeClaim, now: Timestamp) -> bool {
    let until = claim.annotations().get(meta::PURGE_AFTER).and_then(|until| until.parse::<Timestamp>().ok());
    claim.metadata.deletion_timestamp.is_none() && until.is_some_and(|until| until <= now)
}

/// Whether a service that is there uses the claim, or is about to.
fn used(claim: &PersistentVolumeClaim, service: &str, namespace: &str, living: Option<&DataService>) -> bool {
    let Some(living) = living.filter(|living| living.metadata.deletion_timestamp.is_none()) else {
        return false;
    };
    let names = Names::new(service, namespace);
    (0..living.spec.topology.replicas).any(|ordinal| names.claim(ordinal) == claim.name_any())
}

/// The Lease of the primary goes with the last volume.
async fn forget_leader(
    work: &Work,
    service: &str,
    namespace: &str,
    claims: &[PersistentVolumeClaim],
    gone: &str,
) -> Result<(), Error> {
    let left = claims.iter().any(|claim| {
        claim.namespace().as_deref() == Some(namespace)
            && claim.labels().get(meta::SERVICE).map(String::as_str) == Some(service)
            && claim.name_any() != gone
            && claim.metadata.deletion_timestamp.is_none()
    });
    if left {
        return Ok(());
    }
    let name = Names::new(service, namespace).lease();
    match work.find::<Lease>(namespace, &name).await? {
        Some(lease) => work.delete(&lease, DeleteParams::default()).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(until: Option<&str>) -> PersistentVolumeClaim {
        let notes = until.map_or(json!({}), |until| json!({meta::PURGE_AFTER: until}));
        serde_json::from_value(json!({"metadata": {"name": "data-orders-1", "annotations": notes}})).unwrap()
    }

    #[test]
    fn only_what_has_an_end_and_is_past_it_goes() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        assert!(over(&claim(Some("2026-11-25T12:00:00Z")), now));
        assert!(!over(&claim(Some("2026-11-25T12:00:01Z")), now));
        assert!(!over(&claim(None), now));
        assert!(!over(&claim(Some("soon")), now));
    }

    #[test]
    fn a_volume_that_a_new_service_took_over_stays() {
        let service = |replicas: i32| {
            let spec = json!({"engine": "postgresql", "version": "15", "topology": {"replicas": replicas}});
            DataService::new("orders", serde_json::from_value(spec).unwrap())
        };
        assert!(used(&claim(None), "orders", "shop", Some(&service(2))));
        assert!(!used(&claim(None), "orders", "shop", Some(&service(1))), "scaled away");
        assert!(!used(&claim(None), "orders", "shop", None));
    }
}
