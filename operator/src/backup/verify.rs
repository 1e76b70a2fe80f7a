//! Carries the trial of a backup out: the throwaway namespace, the copies in it, and that nothing of it stays.
use std::collections::BTreeMap;

use culvert_resources::{Backup, BackupTarget, DataService, Restore, Verified, Why, meta};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Preconditions};
use kube::{Api, ResourceExt as _};

use super::trial::{self, Place, Step, Trial};
use crate::reconcile::{Error, Next, Work};

/// Label of the namespaces of trials.
const TRIALS: &str = "data.culvert.dev/trial";

/// What came of a round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What was found, when it has ended now.
    pub(super) verified: Option<Verified>,
    /// What it waits for.
    pub(super) why: Option<Why>,
    /// When to look again.
    pub(super) next: Option<Next>,
}

/// One round of the verification of a backup that asks for one.
pub(super) async fn round(
    work: &Work,
    backup: &Backup,
    target: Option<&BackupTarget>,
) -> Result<Round, Error> {
    if !backup.spec.verify {
        return Ok(Round::default());
    }
    let place = place(backup, target);
    let seen = look(work, backup, &place).await?;
    let soon = |why| Round { why, next: Some(Next::seconds(5)), ..Round::default() };
    Ok(match trial::next(&seen) {
        Step::Nothing => Round::default(),
        Step::Begin => {
            begin(work, backup, &place).await?;
            soon(None)
        }
        Step::Fill => {
            fill(work, backup, target, &place).await?;
            soon(None)
        }
        Step::Wait(cause) => soon(cause),
        Step::Conclude(verified) => {
            Round { verified: Some(verified), why: None, next: Some(Next::seconds(1)) }
        }
        Step::Tidy => {
            tidy(work, backup, &place).await?;
            soon(None)
        }
    })
}

/// Removes what is left of a trial, whatever became of it.
pub(super) async fn end(work: &Work, backup: &Backup, target: Option<&BackupTarget>) -> Result<(), Error> {
    if backup.spec.verify { tidy(work, backup, &place(backup, target)).await } else { Ok(()) }
}

fn place(backup: &Backup, target: Option<&BackupTarget>) -> Place {
    if target.is_some_and(|target| target.spec.file_share.is_some()) {
        return Place::Beside(backup.namespace().unwrap_or_default());
    }
    Place::Throwaway(trial::namespace(backup))
}

async fn look<'a>(work: &Work, backup: &'a Backup, place: &Place) -> Result<Trial<'a>, Error> {
    let restore: Option<Restore> = work.find(place.namespace(), &trial::name(backup)).await?;
    let (begun, left) = match place {
        Place::Throwaway(name) => {
            let standing = own_namespace(work, backup, name).await?;
            let whole = standing.as_ref().filter(|one| one.metadata.deletion_timestamp.is_none());
            (whole.and_then(|one| one.creation_timestamp()).map(|at| at.0), standing.is_some())
        }
        Place::Beside(_) => {
            let now = work.world().now();
            let begun = restore.as_ref().and_then(|one| one.creation_timestamp()).map_or(now, |at| at.0);
            (Some(begun), restore.is_some())
        }
    };
    let others = if begun.is_none() { others(work, place).await? } else { 0 };
    Ok(Trial { backup, begun, left, restore, others, now: work.world().now() })
}

/// What the annotation of the namespace says.
fn purpose(backup: &Backup) -> String {
    let namespace = backup.namespace().unwrap_or_default();
    format!("{namespace}/{}/{}", backup.name_any(), backup.uid().unwrap_or_default())
}

/// The namespace of the trial, when it was made for this very backup: another of that name is not ours to delete.
async fn own_namespace(work: &Work, backup: &Backup, name: &str) -> Result<Option<Namespace>, Error> {
    let namespaces: Api<Namespace> = Api::all(work.world().client());
    let found = namespaces.get_opt(name).await;
    let found = found.map_err(|error| Error::kube(format!("reading Namespace {name}"), error))?;
    Ok(found.filter(|one| one.annotations().get(meta::VERIFIES) == Some(&purpose(backup))))
}

async fn others(work: &Work, place: &Place) -> Result<usize, Error> {
    let namespaces: Api<Namespace> = Api::all(work.world().client());
    let list = namespaces.list(&ListParams::default().labels(TRIALS)).await;
    let list = list.map_err(|error| Error::kube("listing namespaces of trials", error))?;
    Ok(list.items.iter().filter(|one| one.name_any() != place.namespace()).count())
}

async fn begin(work: &Work, backup: &Backup, place: &Place) -> Result<(), Error> {
    let Place::Throwaway(name) = place else { return Ok(()) };
    let labels = [(TRIALS, "true"), (meta::MANAGED_BY, "culvert")];
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some([(meta::VERIFIES.to_owned(), purpose(backup))].into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(work.world().client());
    created(namespaces.create(&work.posting(), &namespace).await, "making the namespace of a trial")
}

/// Copies what the restore needs, and makes it. Only what is missing is made, so that it can be done again.
async fn fill(
    work: &Work,
    backup: &Backup,
    target: Option<&BackupTarget>,
    place: &Place,
) -> Result<(), Error> {
    if let (Place::Throwaway(name), Some(target)) = (place, target) {
        let from = backup.namespace().unwrap_or_default();
        if let Some(secret) = &target.spec.secret {
            copy_secret(work, &from, &secret.name, name).await?;
        }
        for secret in work.plane().await?.pull_secrets {
            copy_secret(work, &from, &secret, name).await?;
        }
        let api: Api<BackupTarget> = work.api(name);
        created(api.create(&work.posting(), &copy_target(target)).await, "copying the target")?;
    }
    let api: Api<Restore> = work.api(place.namespace());
    let restore = trial::restore(backup, place);
    created(api.create(&work.posting(), &restore).await, "making the restore of a trial")
}

/// The target without what only the agent can open, and without checks: its next use is the trial itself.
fn copy_target(target: &BackupTarget) -> BackupTarget {
    let mut spec = target.spec.clone();
    (spec.sealed, spec.check_every_seconds) = (None, 0);
    BackupTarget::new(&target.name_any(), spec)
}

async fn copy_secret(work: &Work, from: &str, name: &str, into: &str) -> Result<(), Error> {
    let Some(secret) = work.find::<Secret>(from, name).await? else { return Ok(()) };
    let labels = BTreeMap::from([(meta::MANAGED_BY.to_owned(), "culvert".to_owned())]);
    let copy = Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        data: secret.data,
        type_: secret.type_,
        ..Secret::default()
    };
    let api: Api<Secret> = work.api(into);
    created(api.create(&work.posting(), &copy).await, "copying a Secret for a trial")
}

fn created<K>(result: Result<K, kube::Error>, doing: &str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(doing, error)),
    }
}

async fn tidy(work: &Work, backup: &Backup, place: &Place) -> Result<(), Error> {
    match place {
        Place::Throwaway(name) => delete_namespace(work, backup, name).await,
        Place::Beside(namespace) => {
            let name = trial::name(backup);
            if let Some(service) = work.find::<DataService>(namespace, &name).await? {
                work.discard_service(&service).await?;
            }
            match work.find::<Restore>(namespace, &name).await? {
                Some(restore) => work.delete(&restore, DeleteParams::default()).await,
                None => Ok(()),
            }
        }
    }
}

async fn delete_namespace(work: &Work, backup: &Backup, name: &str) -> Result<(), Error> {
    let Some(namespace) = own_namespace(work, backup, name).await? else { return Ok(()) };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let very = Preconditions { uid: namespace.uid(), resource_version: None };
    let namespaces: Api<Namespace> = Api::all(work.world().client());
    let parameters = DeleteParams { preconditions: Some(very), ..DeleteParams::default() };
    match namespaces.delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::kube(format!("deleting Namespace {name}"), error)),
    }
}
