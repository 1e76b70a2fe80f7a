//! Reads what a restore is decided from.
use std::collections::BTreeMap;

use culvert_resources::{Backup, BackupTarget, ConditionType, DataPlane, DataService, Restore, meta};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::compose::{Here, MADE_BY};
use super::exchange::{Claim, Exchange, Mark, PrimaryLease, Side, Volume};
use super::rules::Seen;
use crate::jobs::names;
use crate::reconcile::{Error, Work};

/// Annotation on a volume that takes part in an exchange: its [`Mark`].
pub(super) const MARK: &str = "data.culvert.dev/exchange";

/// Reads everything.
pub(super) async fn look<'a>(work: &Work, restore: &'a Restore) -> Result<Seen<'a>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let spec = &restore.spec;
    let backup = match &spec.source.backup {
        Some(name) => work.find::<Backup>(&namespace, name).await?,
        None => None,
    };
    let target = match target_name(restore, backup.as_ref()) {
        Some(name) => work.find::<BackupTarget>(&namespace, &name).await?,
        None => None,
    };
    let service = work.find::<DataService>(&namespace, &spec.service).await?;
    let filled = match &spec.in_place {
        Some(_) => work.find(&namespace, &filled_name(restore)).await?,
        None => service.clone(),
    };
    Ok(Seen {
        restore,
        backup,
        target,
        inspect: work.look_at_job(&namespace, &inspect_name(restore)).await?,
        prior: prior(work, restore).await?,
        exchange: exchange(work, restore, service.as_ref(), filled.as_ref()).await?,
        here: here(work, service.as_ref().map(|service| service.spec.engine.clone())).await?,
        service,
        filled,
        now: work.world().now(),
    })
}

/// Name of the Job that looks at the backup.
pub(super) fn inspect_name(restore: &Restore) -> String {
    names::job(&restore.name_any(), "inspect")
}

/// Name of the service that is filled.
pub(super) fn filled_name(restore: &Restore) -> String {
    match restore.spec.in_place {
        Some(_) => names::stand_in(&restore.spec.service, &restore.uid().unwrap_or_default()),
        None => restore.spec.service.clone(),
    }
}

fn target_name(restore: &Restore, backup: Option<&Backup>) -> Option<String> {
    let checked = restore.status.as_ref().and_then(|status| status.target.clone());
    checked
        .or_else(|| restore.spec.source.target.clone())
        .or_else(|| backup.map(|backup| backup.spec.target.clone()))
}

async fn prior(work: &Work, restore: &Restore) -> Result<Option<Backup>, Error> {
    let Some(in_place) = &restore.spec.in_place else { return Ok(None) };
    let name = in_place.prior_backup.clone().unwrap_or_else(|| names::prior_backup(&restore.name_any()));
    work.find(&restore.namespace().unwrap_or_default(), &name).await
}

/// What of this cluster matters. Without an engine the versions of all are told: they cannot be mistaken for each other
/// in a wish for an exact one.
async fn here(work: &Work, engine: Option<String>) -> Result<Here, Error> {
    let client = work.world().client();
    let classes: Api<StorageClass> = Api::all(client.clone());
    let classes = classes.list(&ListParams::default()).await;
    let classes = classes.map_err(|error| Error::kube("listing storage classes", error))?;
    let planes: Api<DataPlane> = Api::all(client);
    let plane = planes.get_opt("default").await;
    let plane = plane.map_err(|error| Error::kube("reading DataPlane default", error))?;
    let engines = plane.map(|plane| plane.spec.engines).unwrap_or_default();
    let fitting = engines.into_iter().filter(|(name, _)| engine.as_ref().is_none_or(|engine| engine == name));
    Ok(Here {
        classes: classes.items.iter().map(|one| one.name_any()).collect(),
        versions: fitting.flat_map(|(_, images)| images.images.into_keys()).collect(),
    })
}

/// What takes part in the exchange of a restore in place.
async fn exchange(
    work: &Work,
    restore: &Restore,
    service: Option<&DataService>,
    stand_in: Option<&DataService>,
) -> Result<Option<Exchange>, Error> {
    let (Some(_), Some(service)) = (&restore.spec.in_place, service) else { return Ok(None) };
    let (namespace, uid) = (restore.namespace().unwrap_or_default(), restore.uid().unwrap_or_default());
    let claims = claims(work, &namespace, &service.name_any()).await?;
    let stand_in_claims = claims_of(work, &namespace, stand_in).await?;
    Ok(Some(Exchange {
        service: side(work, restore, service).await?,
        stand_in: match stand_in {
            Some(one) => Some(side(work, restore, one).await?),
            None => None,
        },
        volumes: volumes(work, &namespace, &uid, claims.iter().chain(&stand_in_claims)).await?,
        lease: lease(work, &namespace, &service.name_any(), &uid).await?,
        restore: uid,
        claims,
        stand_in_claims,
    }))
}

async fn side(work: &Work, restore: &Restore, service: &DataService) -> Result<Side, Error> {
    let namespace = service.namespace().unwrap_or_default();
    let pods: Vec<Pod> = work.list(&namespace, meta::DATABASE, &service.name_any()).await?;
    let conditions = service.status.iter().flat_map(|status| &status.conditions);
    let available = conditions
        .into_iter()
        .any(|one| one.type_ == ConditionType::Available.as_str() && one.status == "True");
    let held = service.annotations().get(meta::HELD) == Some(&restore.name_any());
    Ok(Side { name: service.name_any(), held, available, pods: pods.len() })
}

async fn claims_of(work: &Work, namespace: &str, service: Option<&DataService>) -> Result<Vec<Claim>, Error> {
    match service {
        Some(service) => claims(work, namespace, &service.name_any()).await,
        None => Ok(Vec::new()),
    }
}

/// The claims of a service's instances, by their names: labels can be changed by anybody.
async fn claims(work: &Work, namespace: &str, service: &str) -> Result<Vec<Claim>, Error> {
    let all: Vec<PersistentVolumeClaim> = work.all(namespace).await?;
    let prefix = format!("data-{service}-");
    let of_service = all.into_iter().filter(|claim| {
        let ordinal = claim.name_any().strip_prefix(&prefix).map(ToOwned::to_owned);
        ordinal.is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Ok(of_service.map(claim).collect())
}

fn claim(claim: PersistentVolumeClaim) -> Claim {
    let spec = claim.spec.clone().unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
    Claim {
        name: claim.name_any(),
        volume: spec.volume_name.clone(),
        bound: phase.as_deref() == Some("Bound"),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        labels: claim.metadata.labels.unwrap_or_default(),
        spec,
    }
}

/// The volumes of claims, and those that bear a mark of the restore.
async fn volumes(
    work: &Work,
    namespace: &str,
    uid: &str,
    claims: impl Iterator<Item = &Claim>,
) -> Result<Vec<Volume>, Error> {
    let volumes: Api<PersistentVolume> = Api::all(work.world().client());
    let mut found = BTreeMap::new();
    let marked = volumes.list(&ListParams::default().labels(&format!("{}={uid}", meta::RESTORE))).await;
    for one in marked.map_err(|error| Error::kube("listing volumes", error))?.items {
        found.insert(one.name_any(), one);
    }
    for name in claims.filter_map(|claim| claim.volume.as_ref()) {
        let one = volumes.get_opt(name).await;
        if let Some(one) = one.map_err(|error| Error::kube(format!("reading volume {name}"), error))? {
            found.insert(name.clone(), one);
        }
    }
    Ok(found.into_values().map(|one| volume(one, namespace)).collect())
}

fn volume(volume: PersistentVolume, namespace: &str) -> Volume {
    let spec = volume.spec.clone().unwrap_or_default();
    let mark = volume.annotations().get(MARK).and_then(|json| serde_json::from_str::<Mark>(json).ok());
    let claim = spec.claim_ref.filter(|claim| claim.namespace.as_deref() == Some(namespace));
    Volume {
        name: volume.name_any(),
        reserved: claim.as_ref().and_then(|claim| claim.name.clone()),
        bound_to: claim.and_then(|claim| claim.uid),
        policy: spec.persistent_volume_reclaim_policy.unwrap_or_default(),
        mark,
    }
}

async fn lease(
    work: &Work,
    namespace: &str,
    service: &str,
    uid: &str,
) -> Result<Option<PrimaryLease>, Error> {
    let Some(lease) = work.find::<Lease>(namespace, &lease_name(service)).await? else { return Ok(None) };
    let put_back = lease.annotations().get(MADE_BY).map(String::as_str) == Some(uid);
    Ok(Some(PrimaryLease { json: serde_json::to_value(lease).map_err(Error::making)?, put_back }))
}

/// Name of the Lease of a service's primary.
pub(super) fn lease_name(service: &str) -> String {
    format!("{service}-primary")
}
