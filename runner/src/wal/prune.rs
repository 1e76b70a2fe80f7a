//! Removes the log that no remaining backup needs.

use futures::{StreamExt as _, TryStreamExt as _};

use super::object::{self, WalError};
use super::{Segment, WalName};
use crate::storage::{Entry, Storage};

/// Removes segments before `keep_from`, whatever their timeline: a backup that begins there needs what
/// comes after it, on its own timeline and on those that left it later. Histories stay, as they are small and
/// say how timelines hang together. Says how many objects went.
pub async fn prune(storage: &Storage, folder: &str, keep_from: Segment) -> Result<usize, WalError> {
    let old: Vec<Entry> = storage
        .list(folder)
        .try_filter(|entry| std::future::ready(is_old(entry.name(), keep_from)))
        .try_collect()
        .await?;
    let count = old.len();
    let deletions = old.into_iter().map(|entry| async move { storage.delete(&entry.path).await });
    futures::stream::iter(deletions).buffer_unordered(8).try_collect::<()>().await?;
    Ok(count)
}

/// Whether an object holds log that ends before a segment. Whatever is not ours is not old.
fn is_old(object: &str, keep_from: Segment) -> bool {
    match object::name_of(object) {
        Some(WalName::Segment(segment) | WalName::Partial(segment) | WalName::Backup(segment, _)) => {
            segment.place() < keep_from.place()
        }
        Some(WalName::History(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_before_the_first_that_is_needed_go() {
        let keep_from = Segment { timeline: 2, high: 0, low: 5 };
        for (object, old) in [
            ("000000010000000000000004.zst.enc", true),
            ("000000010000000000000004.partial.zst", true),
            ("000000020000000000000004.00000028.backup.zst", true),
            ("000000020000000000000005.zst", false),
            // A timeline that was left later may still be needed.
            ("000000010000000000000006.zst", false),
            ("00000002.history.zst", false),
            ("000000010000000000000004", false),
            ("holiday.jpg", false),
        ] {
            assert_eq!(is_old(object, keep_from), old, "{object}");
        }
    }
}
