//! Which engine is dumped by what.

use std::path::PathBuf;

use culvert_resources::Method;
use culvert_resources::job::BackupJob;
use secrecy::SecretString;

use super::dump::Dump;
use super::error::JobError;
use super::postgresql::{Logical, Physical, Place, Programs, Server};
use super::valkey;
use crate::args::Folders;

/// Who may do everything, in PostgreSQL.
const ADMIN: &str = "culvert_admin";
/// Who may copy files, in PostgreSQL.
const REPLICATION: &str = "culvert_replication";

/// How the engine of a Job is dumped.
pub(super) fn dump(folders: &Folders, job: &BackupJob) -> Result<Box<dyn Dump>, JobError> {
    match job.engine.as_str() {
        "postgresql" => postgresql(folders, job),
        "valkey" => valkey(folders, job),
        other => Err(JobError::Configuration(format!("{other} cannot be backed up by this program"))),
    }
}

fn postgresql(folders: &Folders, job: &BackupJob) -> Result<Box<dyn Dump>, JobError> {
    let programs = folders.engine_bin.as_deref().map(Programs::in_folder);
    let server = |user: &str, file: &str| {
        let place = Place { host: job.host.clone(), port: job.port, ca: ca(folders) };
        Server::new(place, user, password(folders, file)?, &scratch(folders))
    };
    let admin = server(ADMIN, "admin-password")?;
    Ok(match job.method {
        Method::Physical => {
            let replication = server(REPLICATION, "replication-password")?;
            Box::new(Physical::new(admin, replication, programs, job.archived))
        }
        Method::Logical => Box::new(Logical::new(admin, programs)),
    })
}

fn valkey(folders: &Folders, job: &BackupJob) -> Result<Box<dyn Dump>, JobError> {
    if job.method != Method::Physical {
        return Err(JobError::Configuration("valkey has no backup but the physical one".to_owned()));
    }
    let password = password(folders, "replication-password")?;
    let ca = folders.tls.join("ca.crt");
    let place = valkey::Place { host: job.host.clone(), port: job.port, ca, password };
    Ok(Box::new(valkey::Snapshot::new(place)))
}

/// The authority of the engine's certificate, when the Job sees one.
pub(super) fn ca(folders: &Folders) -> Option<PathBuf> {
    Some(folders.tls.join("ca.crt")).filter(|ca| ca.is_file())
}

/// Read when it is used, so a rotation between two attempts takes effect.
pub(super) fn password(folders: &Folders, file: &str) -> Result<SecretString, JobError> {
    let path = folders.credentials.join(file);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        JobError::engine("engine_login", format!("the password {file} cannot be read: {error}"))
    })?;
    let text = zeroize::Zeroizing::new(text);
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned().into())
}

/// In memory where there is such a folder, else what goes with the pod.
fn scratch(folders: &Folders) -> PathBuf {
    if folders.run.is_dir() { folders.run.clone() } else { std::env::temp_dir() }
}
