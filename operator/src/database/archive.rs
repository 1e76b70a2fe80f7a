//! Where the log goes and what a new database is filled from: objects of the same namespace that others own.
use culvert_resources::instance::{ARCHIVE_DIR, ArchiveConfig, SOURCE_DIR, SourceConfig};
use culvert_resources::{BackupTarget, DataPlane, Restore};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;

use super::children::Parent;
use super::children::config::Elsewhere;
use super::children::pod::{Extra, SOURCE};
use crate::jobs::reach::{Plane, Reach};
use crate::reconcile::{Error, Work};

/// For so long a new database waits for the target of its log and that target's Secret, which usually come in the same
/// second; later they would cost a restart.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);

/// The targets that a database needs.
#[derive(Debug, Default)]
pub(super) struct Targets {
    archive: Option<BackupTarget>,
    source: Option<(Restore, BackupTarget)>,
    plane: Plane,
    expected: bool,
}

impl Targets {
    pub(super) async fn look(work: &Work, parent: &Parent<'_>) -> Result<Self, Error> {
        let spec = &parent.database.spec;
        if spec.archive.is_none() && spec.source.is_none() {
            return Ok(Self::default());
        }
        let planes = Api::<DataPlane>::all(work.world().client());
        let plane =
            planes.get_opt("default").await.map_err(|error| Error::kube("reading the DataPlane", error))?;
        let archive = match &spec.archive {
            Some(archive) => work.find::<BackupTarget>(parent.namespace, &archive.target).await?,
            None => None,
        };
        let source = match &spec.source {
            Some(source) => source_of(work, parent.namespace, &source.restore).await?,
            None => None,
        };
        let expected =
            young(parent, work.world().now()) && !archive_can_go(work, parent, archive.as_ref()).await?;
        Ok(Self { archive, source, plane: Plane::of(plane.as_ref()), expected })
    }

    /// Whether everything is there that a database begins with. One that is to be filled waits for its source for as
    /// long as it takes: it would otherwise begin empty.
    pub(super) fn complete(&self, parent: &Parent<'_>) -> bool {
        (parent.database.spec.source.is_none() || self.source.is_some()) && !self.expected
    }

    /// For the runner's file and for its pod.
    pub(super) fn reached(&self, parent: &Parent<'_>) -> (Elsewhere, Extra) {
        let proxy = self.plane.proxy.as_deref();
        let (mut elsewhere, mut extra) = (Elsewhere::default(), Extra::default());
        let mut add = |reach: Reach| {
            let known = |name: &str, extra: &Extra| extra.volumes.iter().any(|volume| volume.name == name);
            for (mut volume, mount) in reach.volumes.into_iter().zip(reach.mounts) {
                if !known(&volume.name, &extra)
                    && !extra.mounts.iter().any(|one| one.mount_path == mount.mount_path)
                {
                    // A database must not wait for the store of its backups.
                    if let Some(secret) = &mut volume.secret {
                        secret.optional = Some(true);
                    }
                    extra.volumes.push(volume);
                    extra.mounts.push(mount);
                }
            }
        };
        if let (Some(archive), Some(target)) = (&parent.database.spec.archive, &self.archive) {
            let reach = Reach::to(target, proxy, "archive", ARCHIVE_DIR);
            let path = archive.path.clone();
            elsewhere.archive = Some(ArchiveConfig { target: reach.config.clone(), path });
            add(reach);
        }
        if let Some((restore, target)) = &self.source {
            let reach = Reach::to(target, proxy, SOURCE, SOURCE_DIR);
            elsewhere.source = source_config(restore, &reach);
            add(reach);
        }
        (elsewhere, extra)
    }
}

/// Whether a database was asked for just now.
fn young(parent: &Parent<'_>, now: Timestamp) -> bool {
    let created = parent.database.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| now.duration_since(created.0) < PATIENCE)
}

/// Whether the log has somewhere to go.
async fn archive_can_go(
    work: &Work,
    parent: &Parent<'_>,
    target: Option<&BackupTarget>,
) -> Result<bool, Error> {
    if parent.database.spec.archive.is_none() {
        return Ok(true);
    }
    let Some(target) = target else { return Ok(false) };
    let Some(secret) = &target.spec.secret else { return Ok(true) };
    Ok(work.find::<Secret>(parent.namespace, &secret.name).await?.is_some())
}

/// The Restore and its target, once the Restore has said what it brings.
async fn source_of(
    work: &Work,
    namespace: &str,
    name: &str,
) -> Result<Option<(Restore, BackupTarget)>, Error> {
    let Some(restore) = work.find::<Restore>(namespace, name).await? else { return Ok(None) };
    let status = restore.status.as_ref();
    let Some(target) = status.filter(|status| status.path.is_some()).and_then(|status| status.target.clone())
    else {
        return Ok(None);
    };
    let target = work.find::<BackupTarget>(namespace, &target).await?;
    Ok(target.map(|target| (restore, target)))
}

fn source_config(restore: &Restore, reach: &Reach) -> Option<SourceConfig> {
    let status = restore.status.as_ref()?;
    Some(SourceConfig {
        restore: restore.metadata.name.clone().unwrap_or_default(),
        target: reach.config.clone(),
        path: status.path.clone()?,
        manifest_digest: status.manifest_digest.clone(),
        point_in_time: restore.spec.point_in_time.as_ref().map(|time| time.0.to_string()),
    })
}
