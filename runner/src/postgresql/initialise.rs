//! Makes the first data of a database.
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::ADMIN;
use super::programs::programs;
use crate::engine::{EngineError, Situation};
use crate::files;
use crate::programs::Program;

/// Present beside the data once it is whole, and never before.
pub(super) const MARKER: &str = "data.whole";

/// Makes empty data with `initdb`. What an earlier attempt left is removed first: it was never in use, because the
/// marker is missing.
///
/// # Errors
/// [`EngineError`].
pub(super) async fn empty(now: &Situation) -> Result<(), EngineError> {
    clear(now)?;
    initdb(now).await?;
    whole(now)
}

/// Runs `initdb`. The data is not whole by that.
///
/// # Errors
/// [`EngineError`].
pub(super) async fn initdb(now: &Situation) -> Result<(), EngineError> {
    let passwords = now.folders.run.join("initdb-password");
    let password = now.credentials.admin.expose_secret();
    let write = |error| EngineError::file("write the password for initdb", error);
    files::write(&passwords, password.as_bytes()).map_err(write)?;
    let made = program(now, &passwords).run().await;
    files::remove(&passwords).map_err(|error| EngineError::file("remove the password for initdb", error))?;
    made.map(|_| ())
}

fn program(now: &Situation, passwords: &Path) -> Program {
    let folder = programs(now);
    Program::new(folder.join("initdb"))
        .args(["--pgdata", &now.folders.data().display().to_string(), "--username", ADMIN])
        .args(["--pwfile", &passwords.display().to_string()])
        .args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums"])
        .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"])
        .env("TZ", "UTC")
        .limit(Some(Duration::from_secs(600)))
}

/// Removes data that is not whole, and its marker before it.
///
/// # Errors
/// [`EngineError::File`].
pub(super) fn clear(now: &Situation) -> Result<(), EngineError> {
    let marker = now.folders.volume.join(MARKER);
    files::remove(&marker).map_err(|error| EngineError::file("remove the marker of whole data", error))?;
    files::remove_folder(&now.folders.data())
        .map_err(|error| EngineError::file("remove data that is not whole", error))
}

/// Says that the data is whole. Everything of it is on the disk before that is said.
///
/// # Errors
/// [`EngineError::File`].
pub(super) fn whole(now: &Situation) -> Result<(), EngineError> {
    let marked = std::fs::File::open(&now.folders.volume).and_then(|volume| {
        rustix::fs::syncfs(&volume)?;
        files::write(&now.folders.volume.join(MARKER), b"")
    });
    marked.map_err(|error| EngineError::file("write the marker of whole data", error))
}
