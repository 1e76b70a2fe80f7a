//! The log in its archive.
use std::path::Path;

use anyhow::Result;

use crate::args::Folders;

/// Puts a segment into the archive; the exit code for the engine.
///
/// # Errors
/// What went wrong; the engine tries again.
pub async fn archive(folders: &Folders, path: &Path, name: &str) -> Result<u8> {
    anyhow::bail!("{}: {name} cannot be archived from {}", folders.archive.display(), path.display())
}

/// Fetches a segment from an archive; the exit code for the engine: 1 when it is not there.
///
/// # Errors
/// What went wrong; the engine must not take it for the end of the log.
pub async fn fetch(folders: &Folders, name: &str, path: &Path) -> Result<u8> {
    anyhow::bail!("{}: {name} cannot be fetched to {}", folders.source.display(), path.display())
}
