//! Writes PostgreSQL's files: configuration, who may come in, certificate, password of the standby.
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::conf::{self, Extras, shell_word};
use super::{REPLICATION, programs};
use crate::engine::{EngineError, Role, Situation};
use crate::files;
use crate::volume::Volume;

/// Writes all of them. True when something changed.
///
/// # Errors
/// [`EngineError::File`].
pub(super) fn configure(
    now: &Situation,
    role: &Role,
    least: &[(&'static str, u64)],
    last: &[(String, String)],
) -> Result<bool, EngineError> {
    let mut changed = secrets(now)?;
    let data = now.folders.data();
    let extras = Extras {
        major: programs::major(&now.config.version),
        least,
        volume_bytes: volume_bytes(now)?,
        archive_command: &archive_command(now),
        restore_command: &restore_command(now, role),
        last,
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

fn volume_bytes(now: &Situation) -> Result<u64, EngineError> {
    let volume = Volume::measure(&now.folders.volume, now.config.volume_bytes);
    Ok(volume.map_err(|error| EngineError::file("measure the volume", error))?.bytes)
}

/// Without an archive every segment counts as archived, so that an archive can be named later without a restart.
fn archive_command(now: &Situation) -> String {
    match now.config.archive {
        None => "true".to_owned(),
        Some(_) => command(now, "archive-wal", "\"%p\" \"%f\""),
    }
}

/// A standby that its primary has no log for any more finds it in the archive.
fn restore_command(now: &Situation, role: &Role) -> String {
    match (role, &now.config.archive) {
        (Role::Replica(_), Some(_)) => fetch_command(now),
        _ => String::new(),
    }
}

/// The command that fetches a segment.
pub(super) fn fetch_command(now: &Situation) -> String {
    command(now, "fetch-wal", "\"%f\" \"%p\"")
}

/// A call of this program that PostgreSQL makes.
fn command(now: &Situation, verb: &str, arguments: &str) -> String {
    let program = now.folders.program().display().to_string();
    let words = [program, verb.to_owned()].into_iter().chain(now.folders.flags());
    // A percent sign would begin a placeholder.
    let words: Vec<String> = words.map(|word| shell_word(&word.replace('%', "%%"))).collect();
    format!("{} {arguments}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgresql::testing::situation;

    #[test]
    fn the_command_of_postgresql_needs_no_flags_in_a_pod() {
        assert_eq!(
            fetch_command(&situation()),
            "'/opt/culvert/bin/culvert-runner' 'fetch-wal' \"%f\" \"%p\""
        );
    }

    #[test]
    fn only_a_standby_with_an_archive_fetches_from_it() {
        let now = situation();
        assert_eq!(restore_command(&now, &Role::Replica(None)), "");
        assert_eq!(archive_command(&now), "true");
    }
}
