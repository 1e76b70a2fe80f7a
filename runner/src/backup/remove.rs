//! Removes what we put into a target, and nothing else.

use futures::TryStreamExt as _;

use super::error::JobError;
use super::manifest;
use crate::storage::{Entry, Storage};

/// Objects of streams end like this, before the number of the volume.
const ENDINGS: [&str; 2] = [".zst", ".zst.enc"];

/// Whether a name in the folder of a backup is one that a backup gives.
fn is_ours(name: &str) -> bool {
    if name == manifest::NAME || name == manifest::PROOF_NAME {
        return true;
    }
    let Some((stream, number)) = name.rsplit_once('.') else { return false };
    let numbered = number.len() >= 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    numbered && ENDINGS.iter().any(|ending| stream.ends_with(ending))
}

/// Removes what an attempt left that did not end.
pub async fn leftovers(storage: &Storage, folder: &str) -> Result<(), JobError> {
    storage.abandon_uploads(folder).await?;
    objects(storage, folder).await.map(|_| ())
}

/// Removes a backup: its manifest first, so that it is none from then on.
///
/// Says how many foreign objects were left in its folder.
pub async fn backup(storage: &Storage, folder: &str) -> Result<usize, JobError> {
    storage.delete(&format!("{folder}/{}", manifest::NAME)).await?;
    storage.delete(&format!("{folder}/{}", manifest::PROOF_NAME)).await?;
    storage.abandon_uploads(folder).await?;
    objects(storage, folder).await
}

async fn objects(storage: &Storage, folder: &str) -> Result<usize, JobError> {
    let entries: Vec<Entry> = storage.list(folder).try_collect().await?;
    let mut foreign = 0;
    for entry in entries {
        let direct = entry.path == format!("{}/{}", folder.trim_matches('/'), entry.name());
        if direct && is_ours(entry.name()) {
            storage.delete(&entry.path).await?;
        } else {
            foreign += 1;
        }
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_backup_gives_are_ours() {
        for ours in [
            "manifest.json",
            "manifest.json.hmac",
            "base.tar.zst.000",
            "globals.sql.zst.enc.000",
            "a.dump.zst.1234",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in
            ["notes.txt", "base.tar.zst", "base.tar.000", "holiday.jpg", "x.zst.00", "x.zst.abc", "", "000"]
        {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }
}
