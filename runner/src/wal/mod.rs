//! PostgreSQL's log in its archive.
//!
//! PostgreSQL calls `archive-wal` for each segment, and in recovery `fetch-wal`. Both are this program again;
//! they hand the work over a socket to the runner beside the engine, which has connections open and reads
//! ahead ([`serve`]), and do it themselves where no runner answers.
//!
//! ```text
//! <folder of the service>/wal/0000000100000000/000000010000000000000002.zst.enc    4 GiB of log in a folder
//! <folder of the service>/wal/00000002.history.zst.enc
//! ```
//!
//! Mistakes a newcomer could make:
//! - To answer 1 from `fetch-wal` when the target does not answer. PostgreSQL takes 1 for the end of the log,
//!   ends the recovery there, and loses what came after. So a fault is answered with a code that stops it.
//! - To refuse a segment that lies there already. PostgreSQL asks again after a crash, and one refusal blocks
//!   all that come after. The same content is success; other content is an error that names the cause.
//! - To trust a segment's date in the store for the time of its content: after an outage it is hours late.
//!   The time of the last write into a segment travels with it.

mod archive;
mod end;
mod fetch;
mod lsn;
mod name;
mod object;
mod prune;
mod service;
mod socket;

use std::path::Path;

use anyhow::Result;

use crate::args::Folders;

pub use archive::archive_file;
pub use end::{End, end};
pub use fetch::{Fetched, fetch_file};
pub use lsn::{Lsn, NoLsn};
pub use name::{NoWalName, Segment, WalName};
pub use object::WalError;
pub use prune::prune;
pub use service::{EXIT_FAULT, EXIT_MISSING};
pub use socket::{SOCKET, serve};

/// Folder of the log in the folder of a service.
pub const FOLDER: &str = "wal";

/// The folder of the log that belongs to a backup, from the folder of the backup.
#[must_use]
pub fn folder_beside(backup_folder: &str) -> Option<String> {
    let (above, _name) = backup_folder.trim_end_matches('/').rsplit_once('/')?;
    let service = above.strip_suffix("/backups").or_else(|| (above == "backups").then_some(""))?;
    Some(if service.is_empty() { FOLDER.to_owned() } else { format!("{service}/{FOLDER}") })
}

/// Puts a segment into the archive; the exit code for the engine.
///
/// # Errors
/// What went wrong; the engine tries again.
pub async fn archive(folders: &Folders, path: &Path, name: &str) -> Result<u8> {
    Ok(socket::call(folders, &socket::Request::archive(path, name)?).await)
}

/// Fetches a segment from an archive; the exit code for the engine: 1 when it is not there.
///
/// # Errors
/// None: each is a code, as the engine must not take one for the end of the log.
pub async fn fetch(folders: &Folders, name: &str, path: &Path) -> Result<u8> {
    match socket::Request::fetch(name, path) {
        Ok(request) => Ok(socket::call(folders, &request).await),
        Err(_) => Ok(EXIT_FAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_lies_beside_the_backups_of_its_service() {
        assert_eq!(
            folder_beside("services/data.shop.1234/backups/one").as_deref(),
            Some("services/data.shop.1234/wal")
        );
        assert_eq!(folder_beside("backups/one/").as_deref(), Some("wal"));
        assert_eq!(folder_beside("elsewhere/one"), None);
        assert_eq!(folder_beside("one"), None);
    }
}
