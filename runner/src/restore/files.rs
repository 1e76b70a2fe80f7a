//! Unpacks a tar of files into a folder, and nowhere else.
//!
//! What comes out of a bucket may have been written by somebody hostile who has the key: a name that leads
//! elsewhere, or a link, is refused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// PostgreSQL refuses a folder of data that others may read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const BUFFER: usize = 256 << 10;

/// Unpacks all into an empty folder, and has it on the disk at the end.
pub(super) fn unpack(reader: &mut dyn Read, folder: &Path) -> io::Result<()> {
    empty(folder)?;
    let mut buffer = vec![0; BUFFER];
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = folder.join(inside(&entry.path()?)?);
        match entry.header().entry_type() {
            EntryType::Directory => make_folder(&path)?,
            EntryType::Regular => write(&mut entry, &path, &mut buffer)?,
            EntryType::XGlobalHeader => {}
            other => return Err(refused(&path, &format!("is of the kind {other:?}"))),
        }
    }
    sync(folder)
}

/// Whatever lies there is not to be mixed with a backup.
fn empty(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    match std::fs::read_dir(folder)?.next() {
        None => Ok(()),
        Some(_) => Err(refused(folder, "is not empty")),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(path)
}

fn write(entry: &mut impl Read, path: &Path, buffer: &mut [u8]) -> io::Result<()> {
    if let Some(above) = path.parent() {
        make_folder(above)?;
    }
    // Anew, and never through a link.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    loop {
        let read = entry.read(buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        io::Write::write_all(&mut file, bytes)?;
    }
}

/// One call for all: a data folder has thousands of files.
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// The path below the folder, without anything that leads elsewhere.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(path, "leads out of the folder"));
            }
        }
    }
    Ok(clean)
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Past the checks of the library, as somebody hostile would.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o777);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_come_out_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let tar = tar(&[
            ("./base", EntryType::Directory, ""),
            ("base/1", EntryType::Regular, "one"),
            ("global/pg_control", EntryType::Regular, "control"),
        ]);
        unpack(&mut tar.as_slice(), &data).unwrap();
        assert_eq!(std::fs::read_to_string(data.join("base/1")).unwrap(), "one");
        assert_eq!(std::fs::metadata(data.join("base/1")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(data.join("global")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(unpack(&mut tar.as_slice(), &data).unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for hostile in [
            ("../outside", EntryType::Regular),
            ("/tmp/outside", EntryType::Regular),
            ("base/../../outside", EntryType::Regular),
            ("pg_tblspc/1", EntryType::Symlink),
            ("base/1", EntryType::Link),
            ("base/1", EntryType::Fifo),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let tar = tar(&[(hostile.0, hostile.1, "")]);
            let error = unpack(&mut tar.as_slice(), &folder.path().join("data")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{hostile:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{hostile:?}");
        }
    }

    #[test]
    fn a_tar_that_is_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tar = tar(&[("base/1", EntryType::Regular, "content")]);
        assert!(unpack(&mut &tar[..514], &folder.path().join("data")).is_err());
    }
}
