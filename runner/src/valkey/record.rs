//! What travels with the data: whose it is, and how often a primary has begun to write it.
//!
//! The engine has no timelines. Its offset begins anew whenever a primary starts from its files, so the offsets of two
//! members compare only within one such life. The record is a key in a database of our own, after those of the
//! applications: it reaches replicas with the data, lies in the files with the data, and its *epoch* grows each time
//! that an instance begins to take writes. Position is then epoch first, offset second.
//!
//! Beside the data lies a *note* with the same, and the last offset that was seen: it is what can be told of data whose
//! engine does not run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{EngineError, Position};

/// The key, in the database after those of the applications.
pub(super) const KEY: &str = "culvert:record";
/// The note, in the folder of the data. Data without it was never finished.
const NOTE: &str = "culvert.json";

/// Whose data it is, and in which life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The same on all members.
    pub(super) identity: String,
    /// Grows whenever an instance begins to take writes.
    pub(super) epoch: u32,
    /// `run_id` of the engine's process that began last.
    pub(super) run: String,
}

impl Record {
    /// The record of a primary in the process `run`: a new epoch when another process wrote the data before.
    pub(super) fn begun(&self, run: &str) -> Self {
        let epoch = if self.run == run { self.epoch } else { self.epoch.saturating_add(1) };
        Self { identity: self.identity.clone(), epoch, run: run.to_owned() }
    }

    pub(super) fn write(&self) -> String {
        format!("{} {} {}", self.identity, self.epoch, self.run)
    }

    /// Reads a value of the key; `None` for anything that was not written by [`Record::write`].
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (identity, epoch, run) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let whole = parts.next().is_none() && !identity.is_empty();
        whole.then(|| Self { identity: identity.to_owned(), epoch, run: run.to_owned() })
    }
}

/// What is known of data whose engine does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The same on all members.
    pub(super) identity: String,
    /// Whether a primary wrote it last.
    pub(super) led: bool,
    /// Epoch.
    pub(super) epoch: u32,
    /// Offset in that epoch.
    pub(super) offset: u64,
}

impl Note {
    /// The note in the folder of the data; `None` when there is none.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, EngineError> {
        match std::fs::read(data.join(NOTE)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| EngineError::refused("read the note of the data", error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::file("read the note of the data", error)),
        }
    }

    /// Writes it: whole or not at all, whatever happens in between.
    pub(super) fn write(&self, data: &Path) -> Result<(), EngineError> {
        let text = serde_json::to_vec(self).map_err(|error| EngineError::refused("write the note", error))?;
        crate::files::write(&data.join(NOTE), &text)
            .map_err(|error| EngineError::file("write the note of the data", error))
    }

    /// Removes it: from here on the data is unfinished.
    pub(super) fn remove(data: &Path) -> Result<(), EngineError> {
        crate::files::remove(&data.join(NOTE))
            .map_err(|error| EngineError::file("remove the note of the data", error))
    }

    /// How far the data goes at least.
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.offset }
    }

    /// How far a running engine's data goes, when it tells `offset` in `epoch`: a process that has just read its files
    /// counts from zero, and has what was noted.
    pub(super) fn position_now(&self, epoch: u32, offset: u64) -> Position {
        let noted = if epoch == self.epoch { self.offset } else { 0 };
        Position { epoch, offset: offset.max(noted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(epoch: u32, run: &str) -> Record {
        Record { identity: "id".to_owned(), epoch, run: run.to_owned() }
    }

    #[test]
    fn each_process_that_takes_writes_begins_an_epoch() {
        let first = record(3, "one");
        assert_eq!(first.begun("one"), first, "asked twice");
        assert_eq!(first.begun("two"), record(4, "two"));
        assert_eq!(record(u32::MAX, "one").begun("two").epoch, u32::MAX);
    }

    #[test]
    fn a_foreign_value_of_the_key_is_no_record() {
        for wrong in ["", "x", "id 1", "id x run", "id -1 run", "id 1 run more", " 1 run"] {
            assert_eq!(Record::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_process_that_read_its_files_has_what_was_noted() {
        let note = Note { identity: "id".to_owned(), led: false, epoch: 2, offset: 500 };
        assert_eq!(note.position_now(2, 0), Position { epoch: 2, offset: 500 });
        assert_eq!(note.position_now(2, 600), Position { epoch: 2, offset: 600 });
        assert_eq!(note.position_now(3, 7), Position { epoch: 3, offset: 7 });
    }

    #[test]
    fn a_note_is_read_back_and_a_damaged_one_does_not_pass_for_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(folder.path()).unwrap(), None);
        let note = Note { identity: "id".to_owned(), led: true, epoch: 2, offset: 500 };
        note.write(folder.path()).unwrap();
        assert_eq!(Note::read(folder.path()).unwrap(), Some(note));
        std::fs::write(folder.path().join(NOTE), "{\"identity\":").unwrap();
        assert!(Note::read(folder.path()).is_err());
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(epoch in any::<u32>(), run in "[0-9a-f]{40}") {
            prop_assert_eq!(Record::read(&record(epoch, &run).write()), Some(record(epoch, &run)));
        }
    }
}
