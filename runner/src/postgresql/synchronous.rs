//! Makes commits wait for standbys, and knows from when on they do.
use std::time::Duration;

use super::conf;
use super::connect::{Session, local, refused};
use super::control::lsn;
use crate::engine::{EngineError, Position, Situation, Standby};

/// How long the server may take to read its configuration.
const RELOAD: Duration = Duration::from_secs(10);

/// The standbys that are connected.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn standbys(now: &Situation) -> Result<Vec<Standby>, EngineError> {
    let what = "look at the standbys";
    let session = local(now, "postgres").await?;
    let rows = session
        .client
        .query(
            "SELECT application_name, state = 'streaming', coalesce(flush_lsn, '0/0')::text, \
             ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int \
             FROM pg_stat_replication WHERE starts_with(application_name, $1)",
            &[&members(now)],
        )
        .await
        .map_err(|error| refused(what, &error))?;
    let read = |row: &tokio_postgres::Row| -> Result<Standby, EngineError> {
        let get = |error: tokio_postgres::Error| refused(what, &error);
        let flushed: String = row.try_get(2).map_err(get)?;
        let epoch: i32 = row.try_get(3).map_err(get)?;
        Ok(Standby {
            pod: row.try_get(0).map_err(get)?,
            streaming: row.try_get::<_, Option<bool>>(1).map_err(get)?.unwrap_or(false),
            flushed: Position { epoch: u32::try_from(epoch).unwrap_or(0), offset: lsn(&flushed)? },
        })
    };
    rows.iter().map(read).collect()
}

/// Brings the list of `now` into force and returns the position of the log before which a commit may have been
/// acknowledged without it.
///
/// Three processes of the server have a list of their own. A new session has the postmaster's. The checkpointer tells
/// committing sessions whether to wait at all, and it has read the configuration before it begins a checkpoint that is
/// asked for later. The senders that feed the standbys acknowledge; those may have the old list for a moment longer, so
/// they are parted with, and the standbys come back.
///
/// # Errors
/// [`EngineError`] when the server does not take the list.
pub(super) async fn enforce(now: &Situation) -> Result<Position, EngineError> {
    let list = conf::standby_names(&now.required);
    let before = shown(now).await?;
    super::reload(now).await?;
    taken(now, &list).await?;
    let session = local(now, "postgres").await?;
    let added = now.required.iter().any(|pod| !before.contains(&format!("\"{pod}\"")));
    if added {
        run(&session, "SET statement_timeout = 0").await?;
        run(&session, "CHECKPOINT").await?;
        part(now, &session).await?;
    }
    let row = session.client.query_one(POSITION, &[]).await.map_err(|error| refused(ENFORCE, &error))?;
    let offset: String = row.try_get(0).map_err(|error| refused(ENFORCE, &error))?;
    let epoch: i32 = row.try_get(1).map_err(|error| refused(ENFORCE, &error))?;
    Ok(Position { epoch: u32::try_from(epoch).unwrap_or(0), offset: lsn(&offset)? })
}

const ENFORCE: &str = "make commits wait for standbys";
const POSITION: &str = "SELECT pg_current_wal_insert_lsn()::text, \
     ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int";

async fn run(session: &Session, statement: &str) -> Result<(), EngineError> {
    session.client.batch_execute(statement).await.map_err(|error| refused(ENFORCE, &error))
}

/// Ends the senders that feed members of this database.
async fn part(now: &Situation, session: &Session) -> Result<(), EngineError> {
    let statement = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication \
         WHERE starts_with(application_name, $1)";
    let parted = session.client.query(statement, &[&members(now)]).await;
    parted.map(|_| ()).map_err(|error| refused(ENFORCE, &error))
}

/// How the names of members begin.
fn members(now: &Situation) -> String {
    format!("{}-", now.config.database)
}

/// Waits until a new session has the list.
async fn taken(now: &Situation, list: &str) -> Result<(), EngineError> {
    let waiting = async {
        while shown(now).await? != list {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    let late = |_| EngineError::Late { what: "reading the list of standbys".to_owned(), limit: RELOAD };
    tokio::time::timeout(RELOAD, waiting).await.map_err(late)?
}

async fn shown(now: &Situation) -> Result<String, EngineError> {
    let what = "read the list of standbys";
    let session = local(now, "postgres").await?;
    let row = session
        .client
        .query_one("SELECT current_setting('synchronous_standby_names')", &[])
        .await
        .map_err(|error| refused(what, &error))?;
    row.try_get(0).map_err(|error| refused(what, &error))
}
