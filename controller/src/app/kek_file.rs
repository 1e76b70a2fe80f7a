//! The file with the key-encryption key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use culvert_pki::seal::FileKek;
use zeroize::Zeroizing;

use super::bootstrap::BootstrapError;

/// Reads the file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<FileKek>, BootstrapError> {
    let unreadable = |source| BootstrapError::KekFile { path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(BootstrapError::KekReadable { path: path.to_owned() });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let kek = text.parse().map_err(|source| BootstrapError::KekBroken { path: path.to_owned(), source })?;
    Ok(Some(kek))
}

/// Makes a key and its file. Whoever finds the file finds all of it, and after this
/// returns it survives a power cut.
pub(super) fn create(path: &Path) -> Result<FileKek, BootstrapError> {
    let kek = FileKek::generate()?;
    write_private(path, kek.expose().as_bytes())
        .map_err(|source| BootstrapError::KekFile { path: path.to_owned(), source })?;
    Ok(kek)
}

/// Writes a file that only its owner may read, all of it or nothing.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    // A left-over of a start that was killed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
