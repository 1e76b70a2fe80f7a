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

#[cfg(test)]
mod tests {
    use culvert_resources::Method;
    use culvert_resources::job::TargetConfig;
    use futures::TryStreamExt as _;

    use super::*;
    use crate::backup::manifest::{FORMAT, Log, Recoverable, Service};
    use crate::wal::Lsn;

    const SERVICE: &str = "services/data.shop.12345678";

    fn manifest(name: &str, start: u64) -> Manifest {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let (start, system_identifier) = (Lsn(start << 24), "7".to_owned());
        let log = Log {
            start,
            end: start,
            timeline: 1,
            segment_bytes: 16 << 20,
            system_identifier,
            archived: true,
        };
        Manifest {
            format: FORMAT,
            backup: name.into(),
            engine: "postgresql".into(),
            version: "17.2".into(),
            method: Method::Physical,
            service: Service {
                namespace: "data".into(),
                name: "shop".into(),
                uid: "u".into(),
                owner: "app".into(),
                spec: serde_json::json!({}),
            },
            started_at: at,
            ended_at: at,
            data_bytes: 0,
            stored_bytes: 0,
            compression: "zstd".into(),
            encryption: None,
            streams: Vec::new(),
            log: Some(log),
            recoverable: Recoverable { from: at, until: at },
        }
    }

    /// Backups that begin in segments 2, 5 and 8, and a log of segments 1 to 9.
    async fn target() -> (tempfile::TempDir, PruneJob, Storage) {
        let folder = tempfile::tempdir().unwrap();
        let share = Some(folder.path().to_str().unwrap().to_owned());
        let target = TargetConfig { name: "nightly".into(), share, ..TargetConfig::default() };
        let storage = Storage::open(&target, Patience::CHECK).unwrap();
        for (name, start) in [("one", 2), ("two", 5), ("three", 8)] {
            let folder = format!("{SERVICE}/backups/{name}");
            manifest::write(&storage, &folder, &manifest(name, start), None).await.unwrap();
        }
        for number in 1..=9 {
            let path = format!("{SERVICE}/wal/0000000100000000/00000001000000000000000{number}.zst");
            storage.put(&path, "log").await.unwrap();
        }
        let job = PruneJob {
            namespace: "data".into(),
            backup: String::new(),
            target,
            path: String::new(),
            wal_path: Some(format!("{SERVICE}/wal")),
        };
        (folder, job, storage)
    }

    async fn delete(job: &PruneJob, name: &str) {
        let path = format!("{SERVICE}/backups/{name}");
        run(&PruneJob { backup: name.into(), path, ..job.clone() }).await.unwrap();
    }

    async fn first_segment(storage: &Storage) -> String {
        let log = storage.list(&format!("{SERVICE}/wal")).map_ok(|entry| entry.name().to_owned());
        let names: Vec<String> = log.try_collect().await.unwrap();
        names.into_iter().min().unwrap().chars().nth(23).unwrap().to_string()
    }

    #[tokio::test]
    async fn the_log_goes_up_to_what_the_first_backup_that_is_left_needs() {
        let (_folder, job, storage) = target().await;
        delete(&job, "two").await;
        assert_eq!(first_segment(&storage).await, "2");
        delete(&job, "one").await;
        assert_eq!(first_segment(&storage).await, "8");
        delete(&job, "one").await;
        assert_eq!(first_segment(&storage).await, "8");
        delete(&job, "three").await;
        assert_eq!(first_segment(&storage).await, "8", "a backup may be under way");
    }

    #[tokio::test]
    async fn the_log_is_kept_when_a_backup_cannot_be_read() {
        let (_folder, job, storage) = target().await;
        storage.put(&format!("{SERVICE}/backups/two/manifest.json"), "{").await.unwrap();
        delete(&job, "one").await;
        assert_eq!(first_segment(&storage).await, "1");
    }
}
