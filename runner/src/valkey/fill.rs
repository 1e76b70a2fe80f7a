//! Puts a snapshot where the append-only file begins, so that the engine starts with what is in it.
//!
//! The engine reads `dump.rdb` only while the append-only file is off. The file's own beginning may be a snapshot, so
//! the restored one is made its base, with an empty continuation and the list that names both.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use culvert_engines::Version;
use culvert_resources::instance::SourceConfig;
use culvert_resources::{WhoCanFix, Why};

use super::settings::APPEND_DIR;
use crate::backup::error::JobError;
use crate::backup::manifest::Manifest;
use crate::engine::{EngineError, Situation};
use crate::restore::Source;

const BASE: &str = "appendonly.aof.1.base.rdb";
const CONTINUATION: &str = "appendonly.aof.1.incr.aof";
const LIST: &str = "appendonly.aof.manifest";
const BUFFER: usize = 256 << 10;
/// With what every snapshot begins.
const MAGIC: [&[u8]; 2] = [b"REDIS", b"VALKEY"];

/// Fills the empty folder of the data from a source.
pub(super) async fn fill(now: &Situation, config: &SourceConfig) -> Result<(), EngineError> {
    let source = Source::open(config).await.map_err(|error| job("check-manifest", &error))?;
    check(&source.manifest, &now.config.version)?;
    let data = now.folders.data();
    let fetched = source.fetch_dump(now.filling.meter(), move |reader| place(reader, &data)).await;
    fetched.map_err(|error| job("fetch", &error))?;
    now.filling.reach(source.manifest.recoverable.until.to_string());
    Ok(())
}

/// An engine reads the snapshots of older ones, and of its own minor version.
fn check(manifest: &Manifest, version: &str) -> Result<(), EngineError> {
    let minor = |text: &str| text.split('.').take(2).collect::<Vec<_>>().join(".");
    let (there, here) = (Version::parse(&minor(&manifest.version)), Version::parse(&minor(version)));
    if manifest.engine == "valkey" && there.is_some() && there <= here {
        return Ok(());
    }
    let message = format!(
        "a backup of {} {} cannot be restored into valkey {version}",
        manifest.engine, manifest.version
    );
    Err(stuck("backup_version", message, "Restore into a service of the same version or a newer one."))
}

fn job(step: &str, error: &JobError) -> EngineError {
    if error.passes() {
        return EngineError::refused(format!("restore ({step})"), error);
    }
    let failure = error.failure(step);
    stuck(&failure.code, failure.message, &failure.hint)
}

fn stuck(code: &str, message: String, next: &str) -> EngineError {
    let (code, next) = (code.to_owned(), next.to_owned());
    EngineError::Stuck(Box::new(Why { code, message, who: WhoCanFix::Developer, next, object: None }))
}

/// Writes the snapshot below `data`; all of it is on the disk when this returns.
pub(super) fn place(snapshot: &mut dyn Read, data: &Path) -> io::Result<()> {
    let folder = data.join(APPEND_DIR);
    DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
    let mut base = create(&folder.join(BASE))?;
    let mut buffer = vec![0; BUFFER];
    let first = read_full(snapshot, &mut buffer)?;
    let begun = buffer.get(..first).unwrap_or_default();
    if !MAGIC.iter().any(|magic| begun.starts_with(magic)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what was restored is no snapshot of the engine",
        ));
    }
    base.write_all(begun)?;
    io::copy(snapshot, &mut base)?;
    base.sync_all()?;
    create(&folder.join(CONTINUATION))?.sync_all()?;
    let mut list = create(&folder.join(LIST))?;
    write!(list, "file {BASE} seq 1 type b\nfile {CONTINUATION} seq 1 type i\n")?;
    list.sync_all()?;
    File::open(&folder)?.sync_all()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads until the buffer is full or nothing is left.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_becomes_the_base_of_the_append_only_file() {
        let data = tempfile::tempdir().unwrap();
        let body = [b"REDIS0011".to_vec(), vec![5; 300_000]].concat();
        place(&mut body.as_slice(), data.path()).unwrap();
        assert_eq!(std::fs::read(data.path().join("appendonlydir").join(BASE)).unwrap(), body);
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for wrong in [&b""[..], b"RED", b"PGDMP", &[0; 9]] {
            let data = tempfile::tempdir().unwrap();
            let error = place(&mut &wrong[..], data.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn nothing_that_lies_there_is_written_over() {
        let data = tempfile::tempdir().unwrap();
        place(&mut &b"REDIS0011"[..], data.path()).unwrap();
        assert!(place(&mut &b"REDIS0012"[..], data.path()).is_err());
    }
}
