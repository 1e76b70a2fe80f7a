//! The state in a folder: one private file, replaced whole, held by one process at a time.
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::state::{MAX_LEN, State, StateError};
use crate::atomic;

const FILE: &str = "identity.json";
const LOCK: &str = "lock";

/// A folder that this process alone uses.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The system frees the lock when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Folder, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("make the folder", path))?;
        let lock = path.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock)
            .map_err(io_error("open", &lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &lock)(error)),
        }
    }

    pub(super) fn load(&self) -> Result<State, StateError> {
        let path = self.path.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
        let limit = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut text).map_err(io_error("read", &path))?;
        State::parse(&text)
    }

    pub(super) fn save(&self, state: &State) -> Result<(), StateError> {
        let path = self.path.join(FILE);
        atomic::write(&path, &state.to_text()?).map_err(io_error("write", &path))
    }
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let what = format!("cannot {what} {}", path.display());
    move |source| StateError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::sample;
    use super::*;

    #[test]
    fn the_folder_belongs_to_one_process_and_outlives_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/state");
        let first = Folder::open(&path).unwrap();
        assert!(first.load().unwrap().identity.is_none());
        assert!(matches!(Folder::open(&path), Err(StateError::InUse(_))));
        first.save(&State { identity: Some(sample()), ..State::default() }).unwrap();
        drop(first);
        let second = Folder::open(&path).unwrap();
        assert_eq!(second.load().unwrap().identity.unwrap().cluster_id, "cls_1");
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_state() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        folder.save(&State { identity: Some(sample()), ..State::default() }).unwrap();
        // What a process leaves that is killed while it writes beside the file.
        std::fs::write(parent.path().join(".identity.json.1.new"), b"{\"format\":1,").unwrap();
        assert!(folder.load().unwrap().identity.is_some());
        std::fs::write(parent.path().join(FILE), b"{\"format\":1,").unwrap();
        assert!(matches!(folder.load(), Err(StateError::Damaged(_))));
    }
}
