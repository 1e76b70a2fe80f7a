//! The Job that looks at a backup before anything is touched: its manifest, and every digest.

use culvert_resources::Method;
use culvert_resources::job::{InspectJob, Inspected};
use jiff::Timestamp;

use super::LONGEST_MESSAGE;
use crate::backup::error::JobError;
use crate::backup::manifest::{self, Manifest, ManifestError, Sealed};
use crate::pack::check;
use crate::restore::{check_window, reachable_until};
use crate::storage::{Patience, Storage};

/// Looks; what was found as JSON.
pub(super) async fn run(job: &InspectJob) -> Result<String, JobError> {
    let storage = Storage::open(&job.target, Patience::WORK)?;
    let wanted = job.point_in_time.as_deref().map(crate::restore::parse_time).transpose()?;
    let (folder, sealed) = find(&storage, job, wanted).await?;
    let until = reachable_until(&storage, &folder, &sealed.manifest).await?;
    if let Some(wanted) = wanted {
        check_window(&sealed.manifest, until, wanted)?;
    }
    for stream in &sealed.manifest.streams {
        check(&storage, &folder, &stream.packed).await?;
    }
    let text = serde_json::to_string(&describe(folder, sealed, until))
        .map_err(|error| JobError::Configuration(error.to_string()))?;
    if text.len() > LONGEST_MESSAGE {
        let what =
            format!("what is known of the backup has {} bytes, more than {LONGEST_MESSAGE}", text.len());
        return Err(JobError::Configuration(what));
    }
    Ok(text)
}

/// The backup in the folder, or else the newest of the service whose folder it is.
async fn find(
    storage: &Storage,
    job: &InspectJob,
    wanted: Option<Timestamp>,
) -> Result<(String, Sealed), JobError> {
    let path = job.path.trim_matches('/');
    match manifest::read(storage, path, job.manifest_digest.as_deref()).await {
        Ok(sealed) => return Ok((path.to_owned(), sealed)),
        Err(ManifestError::Missing { .. }) if job.manifest_digest.is_none() => {}
        Err(error) => return Err(error.into()),
    }
    let backups = format!("{path}/backups");
    let mut best: Option<(String, Sealed)> = None;
    let mut unreadable = None;
    for name in storage.folders(&backups).await? {
        let folder = format!("{backups}/{name}");
        match manifest::read(storage, &folder, None).await {
            Ok(sealed)
                if is_better(&sealed.manifest, best.as_ref().map(|(_, best)| &best.manifest), wanted) =>
            {
                best = Some((folder, sealed));
            }
            Ok(_) | Err(ManifestError::Missing { .. }) => {}
            // Another may do; when none does, this is why.
            Err(error) => unreadable = Some(error),
        }
    }
    match (best, unreadable) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(ManifestError::Missing { path: path.to_owned() }.into()),
    }
}

/// Whether a backup is a better one to restore than the best so far: the newest that ended before the point.
fn is_better(this: &Manifest, best: Option<&Manifest>, wanted: Option<Timestamp>) -> bool {
    let usable = match wanted {
        None => true,
        // Only files can be brought further, by the log.
        Some(wanted) => {
            this.recoverable.from == wanted
                || (this.recoverable.from < wanted && this.method == Method::Physical)
        }
    };
    usable && best.is_none_or(|best| this.recoverable.from > best.recoverable.from)
}

fn describe(path: String, sealed: Sealed, until: Timestamp) -> Inspected {
    let Sealed { manifest, digest } = sealed;
    Inspected {
        path,
        manifest_digest: digest,
        engine: manifest.engine,
        version: manifest.version,
        method: manifest.method,
        data_bytes: i64::try_from(manifest.data_bytes).unwrap_or(i64::MAX),
        recoverable_from: manifest.recoverable.from.to_string(),
        recoverable_until: until.to_string(),
        service_spec: manifest.service.spec,
        failure: None,
    }
}
