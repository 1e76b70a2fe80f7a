//! Files that hold secrets or state: private, replaced as a whole, locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for a lock that another process holds: a certificate is
/// made in well under a second, and a network time-out ends at 30.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(40);

/// Replaces a file as a whole with mode 0600; makes missing folders with 0700.
/// A reader sees the old text or the new one and never a part.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

/// Replaces a file as a whole, follows a link to it, and keeps its mode and, as
/// far as this user may, its owner. A new file gets mode 0600.
pub(crate) fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let before = fs::metadata(&target).ok();
    let mode = before.as_ref().map_or(0o600, |meta| meta.mode() & 0o777);
    replace(&target, bytes, mode)?;
    if let Some(meta) = before {
        // Only root may give a file away; for everyone else the owner is right already.
        let _ = std::os::unix::fs::chown(&target, Some(meta.uid()), Some(meta.gid()));
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", uuid::Uuid::now_v7().simple()));
    let written = write_draft(&draft, bytes, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft is of no use to anyone; the first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(&folder)?.sync_all()
}

fn write_draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    // The mask of the process can only have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder_of(path: &Path) -> io::Result<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Reads a text file of at most `limit` bytes; `None` when it is not there.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if meta.len() > limit {
        let reason = format!("it has {} bytes, more than the {limit} that make sense", meta.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    fs::read_to_string(path).map(Some)
}

/// Reads a file that must be readable by its owner alone.
pub(crate) fn read_private(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if meta.mode() & 0o077 != 0 {
        let reason = format!("others can read it; run: chmod 600 {}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    read_text(path, limit)
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An advisory lock between processes, held until it is dropped. The file stays:
/// removing it would let two processes lock two files of one name.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or fails with `TimedOut` after `wait`.
    pub(crate) fn take(path: &Path, wait: Duration) -> io::Result<Self> {
        folder_of(path)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let until = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    let reason = format!("another process holds {}", path.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// kubectl's own lock of a kubeconfig: a file `<config>.lock` that exists while
/// somebody writes. Removed on drop.
pub(crate) struct KubectlLock {
    path: PathBuf,
}

impl KubectlLock {
    /// Takes the lock, or fails with `TimedOut` after `wait`.
    pub(crate) fn take(config: &Path, wait: Duration) -> io::Result<Self> {
        folder_of(config)?;
        let mut name = config.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let until = Instant::now() + wait;
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(_) => return Ok(Self { path }),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) if Instant::now() >= until => {
                    let reason =
                        format!("{} is there: another process writes, or died writing", path.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for KubectlLock {
    fn drop(&mut self) {
        // Somebody else may have removed it as stale; there is nothing more to do.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_private_even_when_it_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/secret");
        write_private(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_private(&path, 100).unwrap_err().to_string().contains("chmod 600"));
        write_private(&path, b"two").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(read_private(&path, 100).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn replacing_in_place_keeps_the_mode_and_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_in_place(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new", 0o640));
    }

    #[test]
    fn a_failed_write_leaves_the_old_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dir");
        fs::create_dir(&path).unwrap();
        assert!(write_private(&path, b"x").is_err(), "a folder cannot be replaced by a file");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take(&path, Duration::ZERO).unwrap();
        let Err(error) = Lock::take(&path, Duration::from_millis(30)) else { panic!("taken twice") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        Lock::take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn an_endless_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        fs::write(&path, vec![b'x'; 11]).unwrap();
        assert!(read_text(&path, 10).is_err());
        assert_eq!(read_text(&folder.path().join("none"), 10).unwrap(), None);
    }
}
