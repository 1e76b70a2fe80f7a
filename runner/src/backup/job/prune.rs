//! The Job that deletes a backup, and the log that no remaining backup needs.

use culvert_resources::job::PruneJob;

use crate::backup::error::JobError;
use crate::backup::manifest::{self, Manifest, ManifestError};
use crate::backup::remove;
use crate::storage::{Patience, Storage};
use crate::wal::{self, Segment};

/// Deletes; says what was done.
pub(super) async fn run(job: &PruneJob) -> Result<String, JobError> {
    let storage = Storage::open(&job.target, Patience::WORK)?;
    // Before it is gone: where its log began.
    let own = start_of(&storage, &job.path).await;
    let foreign = remove::backup(&storage, &job.path).await?;
    let mut said = match foreign {
        0 => "deleted".to_owned(),
        count => format!("deleted; {count} foreign objects in its folder were left"),
    };
    if let Some(wal) = &job.wal_path
        && let Some(keep_from) = first_needed(&storage, &job.path, own.ok().flatten()).await
    {
        let count = wal::prune(&storage, wal, keep_from).await?;
        said.push_str(&format!("; {count} files of the log deleted"));
    }
    Ok(said)
}

/// The first segment that a backup which is left needs; none when that is not known, and then all is kept.
///
/// Without any, what the deleted one needed is kept: another may be under way that has no manifest yet, and it
/// began later than this one.
async fn first_needed(storage: &Storage, deleted: &str, own: Option<Segment>) -> Option<Segment> {
    let (backups, _) = deleted.trim_end_matches('/').rsplit_once('/')?;
    let mut first = own;
    let mut remaining = Vec::new();
    for name in storage.folders(backups).await.ok()? {
        match start_of(storage, &format!("{backups}/{name}")).await {
            Ok(start) => remaining.extend(start),
            // Its manifest is not there yet, or not any more.
            Err(ManifestError::Missing { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "the log is kept, as it is not known what a backup needs of it");
                return None;
            }
        }
    }
    if let Some(least) = remaining.into_iter().min_by_key(|segment| segment.place()) {
        first = Some(least);
    }
    first
}

/// Where the log of a backup begins; none for one that needs none.
async fn start_of(storage: &Storage, folder: &str) -> Result<Option<Segment>, ManifestError> {
    let sealed = manifest::read_any(storage, folder).await?;
    Ok(segment(&sealed.manifest))
}

fn segment(manifest: &Manifest) -> Option<Segment> {
    let log = manifest.log.as_ref()?;
    Some(Segment::holding(log.timeline, log.start, log.segment_bytes))
}
