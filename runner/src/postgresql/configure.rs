//! Writes PostgreSQL's files: configuration, who may come in, certificate, password of the standby.
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::conf::{self, Extras, shell_word};
use super::{REPLICATION, programs};
use crate::engine::{EngineError, Role, Situation};
use crate::files;

/// Writes all of them. True when something changed.
///
/// # Errors
/// [`EngineError::File`].
pub(super) fn configure(
    now: &Situation,
    role: &Role,
    least: &[(&'static str, u64)],
) -> Result<bool, EngineError> {
    let mut changed = secrets(now)?;
    let data = now.folders.data();
    let extras = Extras {
        major: programs::major(&now.config.version),
        least,
        volume_bytes: volume_bytes(&now.folders.volume)?,
        archive_command: &archive_command(now),
        recovery: &[],
    };
    changed |= update(&data.join("postgresql.conf"), &conf::postgresql(now, role, &extras))?;
    changed |= update(&data.join("pg_hba.conf"), &conf::hba(&now.config))?;
    changed |= update(&data.join("postgresql.auto.conf"), "")?;
    if matches!(role, Role::Replica(_)) {
        changed |= update(&data.join("standby.signal"), "")?;
    }
    Ok(changed)
}

/// Writes the certificate and the password of the standby into the folder in memory. True when something changed.
///
/// # Errors
/// [`EngineError::File`].
pub(super) fn secrets(now: &Situation) -> Result<bool, EngineError> {
    let run = &now.folders.run;
    files::private_folder(run).map_err(|error| {
        EngineError::file(format!("make the folder {} (it wants an emptyDir)", run.display()), error)
    })?;
    let mut changed = false;
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        let from = now.folders.tls.join(name);
        let read = std::fs::read(&from).map(zeroize::Zeroizing::new);
        let contents = read.map_err(|error| EngineError::file(format!("read {name}"), error))?;
        let written = files::update(&run.join(name), &contents);
        changed |= written.map_err(|error| EngineError::file(format!("write {name}"), error))?;
    }
    let password = now.credentials.replication.expose_secret();
    let line = super::pgpass(REPLICATION, password);
    Ok(changed | update(&run.join("pgpass"), &line)?)
}

fn update(path: &Path, contents: &str) -> Result<bool, EngineError> {
    files::update(path, contents.as_bytes())
        .map_err(|error| EngineError::file(format!("write {}", path.display()), error))
}

fn volume_bytes(volume: &Path) -> Result<u64, EngineError> {
    let found = rustix::fs::statvfs(volume);
    let found = found.map_err(|error| EngineError::file("measure the volume", error.into()))?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Calls this program. Without an archive every segment counts as archived, so that an archive can be named later without
/// a restart.
fn archive_command(now: &Situation) -> String {
    if now.config.archive.is_none() {
        return "true".to_owned();
    }
    let program = now.folders.program().display().to_string();
    let words = [program, "archive-wal".to_owned()].into_iter().chain(now.folders.flags());
    // A percent sign would begin a placeholder.
    let words: Vec<String> = words.map(|word| shell_word(&word.replace('%', "%%"))).collect();
    format!("{} \"%p\" \"%f\"", words.join(" "))
}
