//! Writes a file so that a reader, or a crash, finds the old contents or the new and nothing between.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `contents` beside `path`, syncs it, and renames it over `path`. The
/// file is readable by its owner alone.
///
/// # Errors
/// Any of the steps'; the old file is then still whole.
pub(crate) fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(hidden);
    let done = write_new(&beside, contents).and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        // The write failed already; a leftover that cannot be removed adds nothing.
        let _ = std::fs::remove_file(&beside);
        return done;
    }
    // The rename itself survives a power cut only once the folder is synced.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A leftover of a crash may have any mode: start from none.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_replaced_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "old and longer").unwrap();
        super::write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(super::write(&folder.path().join("missing/state"), b"x").is_err());
    }
}
