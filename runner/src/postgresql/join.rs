//! Makes the data of this instance a copy of the primary's: as it is, mended by `pg_rewind`, or fetched anew.
use secrecy::{ExposeSecret as _, SecretString};

use super::connect::{admin_of, refused};
use super::control::{self, Control};
use super::initialise::{MARKER, clear, whole};
use super::programs::programs;
use super::{ADMIN, REPLICATION, conf};
use crate::engine::{EngineError, Peer, Situation};
use crate::files;
use crate::programs::Program;

/// Name of what copies data: not that of a pod, which would make it a standby that commits may wait for.
const NAME: &str = "culvert join";

/// What is wrong with the data that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    /// Nothing: it can follow.
    Nothing,
    /// It has what the primary has not.
    Rewind,
    /// It is not whole, or not of this database.
    Fetch,
}

/// Makes it a copy.
///
/// # Errors
/// [`EngineError`]; the data is then either as it was, or marked as not whole.
pub(super) async fn join(
    now: &Situation,
    primary: &Peer,
    here: Option<&Control>,
    led: bool,
) -> Result<(), EngineError> {
    let there = look(now, primary).await?;
    match mend(here.filter(|_| !now.distrusted), led, &there) {
        Mend::Nothing => Ok(()),
        Mend::Fetch => fetch(now, primary).await,
        Mend::Rewind => match rewind(now, primary).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the data could not be rewound: it is fetched anew");
                fetch(now, primary).await
            }
        },
    }
}

/// What the primary has.
struct There {
    identity: String,
    timeline: u32,
    history: Vec<crate::engine::Position>,
}

async fn look(now: &Situation, primary: &Peer) -> Result<There, EngineError> {
    let session = admin_of(now, primary).await?;
    let what = "look at the primary's log";
    let row = session
        .client
        .query_one(
            "SELECT system_identifier::text, pg_is_in_recovery(), \
             ('x' || substr(pg_walfile_name(CASE WHEN pg_is_in_recovery() THEN NULL ELSE \
             pg_current_wal_insert_lsn() END), 1, 8))::bit(32)::int FROM pg_control_system()",
            &[],
        )
        .await
        .map_err(|error| refused(what, &error))?;
    let timeline: Option<i32> = row.try_get(2).map_err(|error| refused(what, &error))?;
    let timeline = timeline.and_then(|timeline| u32::try_from(timeline).ok());
    let timeline = timeline.ok_or_else(|| EngineError::refused(what, "it is not primary yet"))?;
    let file = format!("pg_wal/{timeline:08X}.history");
    let history = session
        .client
        .query_one("SELECT pg_read_file($1, 0, 1000000, true)", &[&file])
        .await
        .map_err(|error| refused(what, &error))?;
    let history: Option<String> = history.try_get(0).map_err(|error| refused(what, &error))?;
    Ok(There {
        identity: row.try_get(0).map_err(|error| refused(what, &error))?,
        timeline,
        history: control::history(&history.unwrap_or_default()),
    })
}

fn mend(here: Option<&Control>, led: bool, there: &There) -> Mend {
    let Some(here) = here.filter(|here| here.identity == there.identity) else { return Mend::Fetch };
    let descends = control::descends(here.position, there.timeline, &there.history);
    match (led, descends, here.clean) {
        // Its log may go beyond the last checkpoint: `pg_rewind` looks at each record.
        (true, _, _) => Mend::Rewind,
        (false, true, _) => Mend::Nothing,
        (false, false, true) => Mend::Rewind,
        // `pg_rewind` cannot recover a standby that crashed.
        (false, false, false) => Mend::Fetch,
    }
}

/// Mends the data. While that goes on it is marked as not whole.
async fn rewind(now: &Situation, primary: &Peer) -> Result<(), EngineError> {
    let marker = now.folders.volume.join(MARKER);
    files::remove(&marker).map_err(|error| EngineError::file("remove the marker of whole data", error))?;
    checkpoint(now, primary).await?;
    let passfile = passfile(now, "rewind", ADMIN, &now.credentials.admin)?;
    let source = format!("{} dbname=postgres", conf::conninfo_as(now, primary, (ADMIN, NAME), &passfile));
    let data = now.folders.data().display().to_string();
    tracing::info!(primary = primary.pod, "rewinding the data to the primary's");
    let rewind = Program::new(programs(now).join("pg_rewind"))
        .args(["--target-pgdata", &data, "--source-server", &source, "--no-ensure-shutdown"])
        .limit(None);
    let done = match recover(now).await {
        Ok(()) => rewind.run().await.map(|_| ()),
        Err(error) => Err(error),
    };
    forget(&passfile)?;
    done?;
    follower(now)
}

/// Marks what has all of a primary as whole, and as data that follows: it is a standby from now on, and may be promoted
/// as one, also before its engine was started.
fn follower(now: &Situation) -> Result<(), EngineError> {
    let signal = now.folders.data().join("standby.signal");
    files::write(&signal, b"").map_err(|error| EngineError::file("write standby.signal", error))?;
    whole(now)
}

/// Before its first checkpoint as primary its control file names the old timeline, and `pg_rewind` believes that.
async fn checkpoint(now: &Situation, primary: &Peer) -> Result<(), EngineError> {
    let session = admin_of(now, primary).await?;
    let done = session.client.batch_execute("SET statement_timeout = 0; CHECKPOINT").await;
    done.map_err(|error| refused("make a checkpoint on the primary", &error))
}

/// Lets data that crashed as a primary replay its own log, so that it can be rewound. Does nothing to data that was shut
/// down.
async fn recover(now: &Situation) -> Result<(), EngineError> {
    let control = super::control_data(now).await?;
    if control.clean {
        return Ok(());
    }
    let data = now.folders.data().display().to_string();
    Program::new(programs(now).join("postgres"))
        .args(["--single", "-F", "-D", &data, "-c", "archive_mode=off", "template1"])
        .limit(None)
        .run()
        .await
        .map(|_| ())
}

/// Fetches all from the primary.
async fn fetch(now: &Situation, primary: &Peer) -> Result<(), EngineError> {
    clear(now)?;
    files::private_folder(&now.folders.data())
        .map_err(|error| EngineError::file("make the data's folder", error))?;
    let passfile = passfile(now, "fetch", REPLICATION, &now.credentials.replication)?;
    let data = now.folders.data().display().to_string();
    tracing::info!(primary = primary.pod, "fetching the data of the primary");
    let done = Program::new(programs(now).join("pg_basebackup"))
        .args([
            "--pgdata",
            &data,
            "--dbname",
            &conf::conninfo_as(now, primary, (REPLICATION, NAME), &passfile),
        ])
        .args(["--wal-method=stream", "--checkpoint=fast", "--no-password"])
        .limit(None)
        .run()
        .await;
    forget(&passfile)?;
    done?;
    follower(now)
}

fn passfile(
    now: &Situation,
    name: &str,
    user: &str,
    password: &SecretString,
) -> Result<std::path::PathBuf, EngineError> {
    let path = now.folders.run.join(format!("pgpass-{name}"));
    let line = super::pgpass(user, password.expose_secret());
    files::write(&path, line.as_bytes())
        .map_err(|error| EngineError::file("write a password file", error))?;
    Ok(path)
}

fn forget(passfile: &std::path::Path) -> Result<(), EngineError> {
    files::remove(passfile).map_err(|error| EngineError::file("remove a password file", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Position;

    fn here(epoch: u32, offset: u64, clean: bool) -> Control {
        Control { identity: "7".to_owned(), position: Position { epoch, offset }, clean, least: Vec::new() }
    }

    fn there() -> There {
        There { identity: "7".to_owned(), timeline: 2, history: vec![Position { epoch: 1, offset: 100 }] }
    }

    #[test]
    fn what_can_follow_is_let_alone_and_what_went_its_own_way_is_mended() {
        assert_eq!(mend(Some(&here(1, 90, false)), false, &there()), Mend::Nothing);
        assert_eq!(mend(Some(&here(2, 190, false)), false, &there()), Mend::Nothing);
        assert_eq!(mend(Some(&here(1, 101, true)), false, &there()), Mend::Rewind);
        assert_eq!(mend(Some(&here(1, 101, false)), false, &there()), Mend::Fetch);
        assert_eq!(mend(Some(&here(1, 90, true)), true, &there()), Mend::Rewind);
    }

    #[test]
    fn data_that_is_missing_or_of_another_database_is_fetched() {
        assert_eq!(mend(None, false, &there()), Mend::Fetch);
        let foreign = Control { identity: "8".to_owned(), ..here(1, 1, true) };
        assert_eq!(mend(Some(&foreign), true, &there()), Mend::Fetch);
    }
}
