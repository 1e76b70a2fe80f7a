//! Which points in time can be reached.

use jiff::Timestamp;
use thiserror::Error;

use crate::backup::error::JobError;
use crate::backup::manifest::Manifest;
use crate::storage::Storage;
use crate::wal::{self, WalError};

/// A point in time that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{wanted} cannot be reached: the recoverable window is from {from} to {until}")]
pub struct Outside {
    /// What was wanted.
    pub wanted: Timestamp,
    /// The earliest that can be reached.
    pub from: Timestamp,
    /// The latest that can be reached.
    pub until: Timestamp,
}

impl From<Outside> for JobError {
    fn from(outside: Outside) -> Self {
        Self::engine_stuck(
            "point_outside_window",
            outside.to_string(),
            "choose a point within the window, or another backup",
        )
    }
}

impl From<WalError> for JobError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Target(fault) => Self::Target(fault),
            other => Self::engine_stuck("archive_damaged", other.to_string(), "read the message"),
        }
    }
}

/// The latest point that a backup can be brought to: where its archive ends, or it does itself.
pub async fn reachable_until(
    storage: &Storage,
    folder: &str,
    manifest: &Manifest,
) -> Result<Timestamp, JobError> {
    let until = manifest.recoverable.until;
    let archived = manifest.log.as_ref().is_some_and(|log| log.archived);
    let Some(log) = wal::folder_beside(folder).filter(|_| archived) else { return Ok(until) };
    let end = wal::end(storage, &log).await?;
    Ok(end.map_or(until, |end| end.written.max(until)))
}

/// Refuses a point outside of the window.
pub fn check_window(manifest: &Manifest, until: Timestamp, wanted: Timestamp) -> Result<(), Outside> {
    let from = manifest.recoverable.from;
    if (from..=until).contains(&wanted) { Ok(()) } else { Err(Outside { wanted, from, until }) }
}
