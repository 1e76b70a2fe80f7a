//! Fills a new database from a backup.
//!
//! All of it happens on a server that only this pod can reach, through its socket: a restored server would let people in
//! with the passwords of the one it was made from. It gets its own before anybody else sees it. The log that it writes
//! meanwhile belongs to no archive.
use std::time::Duration;

use culvert_resources::instance::SourceConfig;
use culvert_resources::{Method, WhoCanFix, Why};

use super::configure::{self, configure};
use super::connect::{local, refused};
use super::initialise::{clear, initdb, whole};
use super::programs::{major, programs};
use super::temporary::Temporary;
use super::{ADMIN, control_data, settle};
use crate::backup::error::JobError;
use crate::backup::postgresql::{Place, Programs, Server};
use crate::engine::{EngineError, Role, Situation};
use crate::files;
use crate::restore::{Source, fetch_base, load_logical};

/// Time between looks at a recovery.
const LOOK: Duration = Duration::from_millis(500);

/// Fills it. What an earlier attempt left is removed first.
///
/// # Errors
/// [`EngineError`]; [`EngineError::Stuck`] when another attempt would be of no use.
pub(super) async fn fill(now: &Situation, config: &SourceConfig) -> Result<(), EngineError> {
    let source = Source::open(config).await.map_err(|error| job("check-manifest", &error))?;
    check(now, &source)?;
    clear(now)?;
    match source.manifest.method {
        Method::Physical => physical(now, &source).await?,
        Method::Logical => logical(now, &source).await?,
    }
    whole(now)
}

/// Files of one major version are of no use to another.
fn check(now: &Situation, source: &Source) -> Result<(), EngineError> {
    let (there, here) = (major(&source.manifest.version), major(&now.config.version));
    let fits = match source.manifest.method {
        Method::Physical => there == here,
        Method::Logical => there <= here,
    };
    if source.manifest.engine == now.config.engine && fits {
        return Ok(());
    }
    Err(stuck(
        "backup_version",
        format!(
            "a backup of {} {} cannot be restored into {} {}",
            source.manifest.engine, source.manifest.version, now.config.engine, now.config.version
        ),
        "restore into a service of the same major version",
    ))
}

async fn physical(now: &Situation, source: &Source) -> Result<(), EngineError> {
    let meter = now.filling.meter();
    fetch_base(source, &now.folders.data(), meter).await.map_err(|error| job("fetch", &error))?;
    let data = now.folders.data();
    files::private_folder(&data).map_err(|error| EngineError::file("close the data's folder", error))?;
    files::remove(&data.join("standby.signal"))
        .map_err(|error| EngineError::file("remove standby.signal", error))?;
    let least = control_data(now).await?.least;
    configure(now, &Role::Primary, &least, &alone(recovery(now, source)))?;
    files::write(&data.join("recovery.signal"), b"")
        .map_err(|error| EngineError::file("write recovery.signal", error))?;
    meter.step("replaying the log");
    let mut server = Temporary::start(now)?;
    recovered(now, &mut server).await?;
    now.filling.reach(reached(now).await?);
    settle::settle(now).await?;
    server.stop().await
}

/// Parameters of the recovery. Without an archive there is nothing to fetch, but PostgreSQL wants to be told so, and
/// begins a timeline of its own then.
fn recovery(now: &Situation, source: &Source) -> Vec<(String, String)> {
    let fetch = if source.has_archive() { configure::fetch_command(now) } else { "false".to_owned() };
    let mut lines: Vec<(String, String)> =
        source.recovery().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    lines.push(("restore_command".to_owned(), fetch));
    lines
}

/// With what keeps everybody else out.
fn alone(mut lines: Vec<(String, String)>) -> Vec<(String, String)> {
    for (name, value) in
        [("listen_addresses", ""), ("archive_mode", "off"), ("synchronous_standby_names", "")]
    {
        lines.push((name.to_owned(), value.to_owned()));
    }
    lines
}

/// Waits until the recovery has ended.
async fn recovered(now: &Situation, server: &mut Temporary) -> Result<(), EngineError> {
    loop {
        server.check()?;
        // Nobody is let in before the data is consistent.
        if let Ok(session) = local(now, "postgres").await {
            let row = session.client.query_one("SELECT pg_is_in_recovery()", &[]).await;
            let recovering: bool = row
                .and_then(|row| row.try_get(0))
                .map_err(|error| refused("look at the recovery", &error))?;
            if !recovering {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The time of the last transaction that was replayed.
async fn reached(now: &Situation) -> Result<String, EngineError> {
    let what = "look how far the recovery went";
    let session = local(now, "postgres").await?;
    let statement = "SELECT coalesce(to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', \
                     'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), 'end of backup')";
    let row = session.client.query_one(statement, &[]).await.map_err(|error| refused(what, &error))?;
    row.try_get(0).map_err(|error| refused(what, &error))
}

async fn logical(now: &Situation, source: &Source) -> Result<(), EngineError> {
    initdb(now).await?;
    configure(now, &Role::Primary, &[], &alone(Vec::new()))?;
    let mut server = Temporary::start(now)?;
    server.answers(now).await?;
    settle::settle(now).await?;
    let run = &now.folders.run;
    let place = Place { host: run.display().to_string(), port: now.config.port, ca: None };
    let login = Server::new(place, ADMIN, now.credentials.admin.clone(), run);
    let login = login.map_err(|error| job("fetch", &error))?;
    let programs = Programs::in_folder(&programs(now));
    let loaded = load_logical(source, &login, &programs, now.filling.meter()).await;
    loaded.map_err(|error| job("recover", &error))?;
    // What was loaded may have brought passwords with it.
    settle::settle(now).await?;
    now.filling.reach("end of backup".to_owned());
    server.stop().await
}

fn stuck(code: &str, message: String, next: &str) -> EngineError {
    let (code, next) = (code.to_owned(), next.to_owned());
    EngineError::Stuck(Box::new(Why { code, message, who: WhoCanFix::Developer, next, object: None }))
}

fn job(step: &str, error: &JobError) -> EngineError {
    if error.passes() {
        return EngineError::refused(format!("restore ({step})"), error);
    }
    let failure = error.failure(step);
    stuck(&failure.code, failure.message, &failure.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_server_is_reached_by_nobody_else() {
        let lines = alone(vec![("restore_command".to_owned(), "x".to_owned())]);
        assert!(lines.contains(&("listen_addresses".to_owned(), String::new())));
        assert!(lines.contains(&("archive_mode".to_owned(), "off".to_owned())));
    }

    #[test]
    fn a_damaged_backup_is_not_tried_again() {
        let damaged = JobError::engine_stuck("backup_damaged", "it is damaged", "take another");
        assert!(matches!(job("fetch", &damaged), EngineError::Stuck(why) if why.code == "backup_damaged"));
        assert!(matches!(job("fetch", &JobError::engine("x", "y")), EngineError::Refused { .. }));
    }
}
