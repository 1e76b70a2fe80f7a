//! Does what was decided about a restore.
use std::collections::BTreeMap;

use culvert_resources::job::{InspectJob, JobConfig, TARGET_DIR};
use culvert_resources::{
    Backup, BackupSpec, BackupTarget, DataService, DataServiceSpec, DeletionPolicy, Method, Restore, Trigger,
    Why, meta,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ObjectMeta, Patch};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::compose::{self, MADE_BY};
use super::exchange::{Mark, Move};
use super::looking::{MARK, filled_name, inspect_name, lease_name};
use super::rules::{Act, Seen};
use crate::backup_target::no_runner;
use crate::jobs::build::{Program, Task};
use crate::jobs::causes::why;
use crate::jobs::names;
use crate::jobs::reach::Reach;
use crate::reconcile::{Error, Work, owner};

/// Seconds that reading all digests of a backup may take.
const INSPECT_SECONDS: i64 = 21_600;
/// Seconds for which the Job stays: its result is read from its pod.
const STAY_SECONDS: i32 = 86_400;

/// Acts; a cause when that is not possible now.
pub(super) async fn act(work: &Work, seen: &Seen<'_>, act: &Act) -> Result<Option<Why>, Error> {
    let restore = seen.restore;
    let namespace = restore.namespace().unwrap_or_default();
    match act {
        Act::Nothing => Ok(None),
        Act::Inspect => inspect(work, seen).await,
        Act::EndInspect => work.end_job(&namespace, &inspect_name(restore)).await.map(|_| None),
        Act::Create(spec) => create(work, restore, spec).await,
        Act::Prior => prior(work, seen).await,
        Act::Exchange(step) => exchange(work, restore, step).await.map(|()| None),
        Act::Discard => match &seen.filled {
            Some(service) => work.discard_service(service).await.map(|()| None),
            None => Ok(None),
        },
    }
}

async fn inspect(work: &Work, seen: &Seen<'_>) -> Result<Option<Why>, Error> {
    let plane = work.plane().await?;
    let path = seen.restore.spec.source.path.clone();
    let path = path.or_else(|| seen.backup.as_ref().and_then(|backup| backup.status.as_ref()?.path.clone()));
    let (Some(target), Some(path)) = (&seen.target, path) else {
        let message = "The backup does not say where it lies.";
        return Ok(Some(why("backup_incomplete", message, "Give target and path instead.")));
    };
    let Some(image) = plane.runner.clone() else { return Ok(Some(no_runner())) };
    let reach = Reach::to(target, plane.proxy.as_deref(), "target", TARGET_DIR);
    let task = inspect_task(seen, target, path, image, reach);
    work.keep_job(&Task { pull_secrets: plane.pull_secrets, ..task }).await?;
    Ok(None)
}

fn inspect_task(seen: &Seen<'_>, target: &BackupTarget, path: String, image: String, reach: Reach) -> Task {
    let restore = seen.restore;
    let namespace = restore.namespace().unwrap_or_default();
    let digest = seen.backup.as_ref().and_then(|backup| backup.status.as_ref()?.manifest_digest.clone());
    let config = InspectJob {
        namespace: namespace.clone(),
        restore: restore.name_any(),
        target: reach.config,
        path,
        point_in_time: restore.spec.point_in_time.as_ref().map(|time| time.0.to_string()),
        manifest_digest: digest,
    };
    Task {
        name: inspect_name(restore),
        namespace,
        labels: BTreeMap::from([
            (meta::RESTORE.to_owned(), restore.name_any()),
            (meta::TARGET.to_owned(), target.name_any()),
        ]),
        owner: owner(restore),
        config: JobConfig::Inspect(config),
        program: Program::Runner(image),
        pull_secrets: Vec::new(),
        volumes: reach.volumes,
        mounts: reach.mounts,
        deadline_seconds: INSPECT_SECONDS.min(restore.spec.deadline_seconds),
        attempts: 3,
        stay_seconds: STAY_SECONDS,
    }
}

async fn create(work: &Work, restore: &Restore, spec: &DataServiceSpec) -> Result<Option<Why>, Error> {
    let service = compose::service(restore, &filled_name(restore), spec.clone());
    let api: Api<DataService> = work.api(&restore.namespace().unwrap_or_default());
    match api.create(&work.posting(), &service).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(None),
        // Refused by validation, quota or a webhook: a person must mend it, and the deadline ends the wait.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 403 | 422) => {
            let message = format!("Kubernetes refuses the new service: {}", answer.message);
            Ok(Some(why("service_refused", message, "Mend what the message names.")))
        }
        Err(error) => Err(Error::kube(format!("creating DataService {}", service.name_any()), error)),
    }
}

async fn prior(work: &Work, seen: &Seen<'_>) -> Result<Option<Why>, Error> {
    let Some(service) = &seen.service else { return Ok(None) };
    let plan = service.spec.backup.as_ref().map(|plan| plan.target.clone());
    let Some(target) = plan.or_else(|| seen.target.as_ref().map(|one| one.name_any())) else {
        return Ok(None);
    };
    let backup = prior_backup(seen.restore, service, target);
    let api: Api<Backup> = work.api(&service.namespace().unwrap_or_default());
    match api.create(&work.posting(), &backup).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(None),
        Err(error) => Err(Error::kube("creating the prior backup", error)),
    }
}

fn prior_backup(restore: &Restore, service: &DataService, target: String) -> Backup {
    let name = names::prior_backup(&restore.name_any());
    let physical = culvert_engines::catalogue()
        .engine(&service.spec.engine)
        .is_none_or(|engine| engine.methods.contains(&Method::Physical));
    let spec = BackupSpec {
        service: service.name_any(),
        target,
        method: if physical { Method::Physical } else { Method::Logical },
        trigger: Trigger::PreRestore,
        schedule: None,
        expires_at: None,
        deletion_policy: DeletionPolicy::Delete,
        verify: false,
        deadline_seconds: restore.spec.deadline_seconds,
        attempts: 3,
    };
    let backup = Backup::new(&name, spec);
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: service.namespace(),
        labels: Some([(meta::SERVICE.to_owned(), service.name_any())].into()),
        finalizers: Some(vec![meta::FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    Backup { metadata, ..backup }
}

impl Work {
    /// Deletes a service that we made, with its volumes.
    pub(crate) async fn discard_service(&self, service: &DataService) -> Result<(), Error> {
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let api: Api<DataService> = self.api(&service.namespace().unwrap_or_default());
        let patch = json!({
            "metadata": { "uid": service.uid(), "annotations": { meta::DELETE_CONFIRMED: "yes" } },
            "spec": { "deletion": { "protection": false, "strategy": "Delete", "undeleteHours": 0 } },
        });
        match api.patch(&service.name_any(), &self.patching(), &Patch::Merge(&patch)).await {
            Ok(_) => self.delete(service, DeleteParams::default()).await,
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => {
                Err(Error::kube(format!("preparing the deletion of {}", service.name_any()), error))
            }
        }
    }
}

async fn exchange(work: &Work, restore: &Restore, step: &Move) -> Result<(), Error> {
    let namespace = restore.namespace().unwrap_or_default();
    match step {
        Move::Wait(what) => {
            tracing::debug!(restore = %restore.name_any(), what, "the exchange waits");
            Ok(())
        }
        Move::Hold(name) => hold(work, &namespace, name, Some(restore.name_any())).await,
        Move::Release(name) => hold(work, &namespace, name, None).await,
        Move::Mark { volume, mark } => mark_volume(work, volume, mark).await,
        Move::DeleteClaim(name) => {
            let Some(claim) = work.find::<PersistentVolumeClaim>(&namespace, name).await? else {
                return Ok(());
            };
            work.delete(&claim, DeleteParams::default()).await
        }
        Move::Reserve { volume, claim } => reserve(work, &namespace, volume, claim).await,
        Move::MakeClaim { volume, mark } => make_claim(work, &namespace, volume, mark).await,
        Move::DeleteLease => {
            let name = lease_name(&restore.spec.service);
            let Some(lease) = work.find::<Lease>(&namespace, &name).await? else { return Ok(()) };
            work.delete(&lease, DeleteParams::default()).await
        }
        Move::PutLease(saved) => put_lease(work, restore, saved).await,
        Move::Settle { volume, policy } => {
            let patch = json!({
                "metadata": { "labels": { meta::RESTORE: null }, "annotations": { MARK: null } },
                "spec": { "persistentVolumeReclaimPolicy": policy },
            });
            patch_volume(work, volume, &patch).await
        }
    }
}

async fn hold(work: &Work, namespace: &str, name: &str, by: Option<String>) -> Result<(), Error> {
    let Some(service) = work.find::<DataService>(namespace, name).await? else { return Ok(()) };
    work.annotate(&service, &[(meta::HELD, by)]).await
}

async fn mark_volume(work: &Work, volume: &str, mark: &Mark) -> Result<(), Error> {
    let text = serde_json::to_string(mark).map_err(Error::making)?;
    let patch = json!({
        "metadata": { "labels": { meta::RESTORE: mark.restore }, "annotations": { MARK: text } },
        "spec": { "persistentVolumeReclaimPolicy": "Retain" },
    });
    patch_volume(work, volume, &patch).await
}

/// Without a uid the reference is a reservation, which only a claim of this name can take.
async fn reserve(work: &Work, namespace: &str, volume: &str, claim: &str) -> Result<(), Error> {
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim,
        "uid": null, "resourceVersion": null,
    });
    patch_volume(work, volume, &json!({ "spec": { "claimRef": reference } })).await
}

async fn patch_volume(work: &Work, volume: &str, patch: &serde_json::Value) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(work.world().client());
    let patched = volumes.patch(volume, &work.patching(), &Patch::Merge(patch)).await;
    patched.map(|_| ()).map_err(|error| Error::kube(format!("patching volume {volume}"), error))
}

async fn make_claim(work: &Work, namespace: &str, volume: &str, mark: &Mark) -> Result<(), Error> {
    let mut spec = mark.spec.clone();
    spec.volume_name = Some(volume.to_owned());
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(mark.claim.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(mark.labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    let api: Api<PersistentVolumeClaim> = work.api(namespace);
    match api.create(&work.posting(), &claim).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(format!("creating claim {}", mark.claim), error)),
    }
}

/// Puts the Lease as it was, held by nobody: the instances agree anew who is primary, by what it tells of them.
async fn put_lease(work: &Work, restore: &Restore, saved: &serde_json::Value) -> Result<(), Error> {
    let saved: Lease = serde_json::from_value(saved.clone()).map_err(Error::making)?;
    let mut annotations = saved.metadata.annotations.unwrap_or_default();
    annotations.insert(MADE_BY.to_owned(), restore.uid().unwrap_or_default());
    let spec = saved.spec.map(|mut spec| {
        spec.holder_identity = None;
        spec
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(lease_name(&restore.spec.service)),
            namespace: restore.namespace(),
            labels: saved.metadata.labels,
            annotations: Some(annotations),
            owner_references: saved.metadata.owner_references,
            ..ObjectMeta::default()
        },
        spec,
    };
    let api: Api<Lease> = work.api(&restore.namespace().unwrap_or_default());
    match api.create(&work.posting(), &lease).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube("putting the Lease back", error)),
    }
}
