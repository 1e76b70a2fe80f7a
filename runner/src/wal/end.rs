//! How far an archive of the log reaches.

use futures::TryStreamExt as _;
use jiff::Timestamp;

use super::object::{self, LONGEST, WalError};
use super::{Segment, WalName};
use crate::storage::{Entry, Storage};

/// How far an archive reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The newest whole segment of the newest timeline.
    pub segment: Segment,
    /// When it was last written, by the clock of the server that wrote it.
    pub written: Timestamp,
}

/// Finds the end of an archive; none when it has no segment. Looks into the last folder only, whatever the
/// length of the archive.
pub async fn end(storage: &Storage, folder: &str) -> Result<Option<End>, WalError> {
    let mut folders: Vec<String> = storage.folders(folder).await?;
    folders.retain(|name| name.len() == 16 && name.bytes().all(|digit| digit.is_ascii_hexdigit()));
    folders.sort_unstable();
    while let Some(last) = folders.pop() {
        let entries: Vec<Entry> = storage.list(&format!("{folder}/{last}")).try_collect().await?;
        let newest =
            entries.iter().filter_map(|entry| Some((segment(entry)?, entry))).max_by_key(|(of, _)| *of);
        if let Some((segment, entry)) = newest {
            return Ok(Some(End { segment, written: written(storage, segment, entry).await? }));
        }
    }
    Ok(None)
}

fn segment(entry: &Entry) -> Option<Segment> {
    match object::name_of(entry.name())? {
        WalName::Segment(segment) => Some(segment),
        _ => None,
    }
}

/// When a segment was written; the store's date where the segment does not tell.
async fn written(storage: &Storage, segment: Segment, entry: &Entry) -> Result<Timestamp, WalError> {
    let object = storage.get(&entry.path, LONGEST).await?;
    let key = if entry.name().ends_with(".enc") { storage.encryption_key()? } else { None };
    let (_, about) = object::decode(&WalName::Segment(segment), &object, key.as_deref())?;
    Ok(about.map_or(entry.modified, |about| about.written))
}
