//! Looks whether PostgreSQL serves: logs in as applications do, writes on a primary, reads on a standby.
use tokio_postgres::Row;

use super::connect::{Session, local, monitor, refused};
use super::control::lsn;
use crate::engine::{EngineError, Position, Probed, Situation};

const WRITE: &str = "INSERT INTO culvert.heartbeat (pod, at) VALUES ($1, now()) \
     ON CONFLICT (pod) DO UPDATE SET at = excluded.at";

/// One row. The log's position is what was written on a primary, and what was received or replayed on a standby,
/// whichever is more.
const LOOK: &str = "SELECT current_setting('server_version') AS version, \
     pg_is_in_recovery() AS recovery, \
     CASE WHEN pg_is_in_recovery() \
       THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text \
       ELSE pg_current_wal_flush_lsn()::text END AS position, \
     CASE WHEN pg_is_in_recovery() \
       THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver), (pg_control_checkpoint()).timeline_id) \
       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline, \
     EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streaming, \
     (SELECT pg_wal_lsn_diff(latest_end_lsn, pg_last_wal_replay_lsn())::bigint FROM pg_stat_wal_receiver) AS lag, \
     (SELECT sum(pg_database_size(oid))::bigint FROM pg_database) AS bytes, \
     (SELECT array_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart) AS pending, \
     current_setting('transaction_read_only') = 'on' AS read_only";

const ARCHIVER: &str = "SELECT last_archived_wal, \
     to_char(last_archived_time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS archived, \
     last_failed_wal, coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) AS failing \
     FROM pg_stat_archiver";

/// Looks. While applications cannot log in, it looks through the socket.
///
/// # Errors
/// [`EngineError::Refused`] when the server does not answer at all.
pub(super) async fn probe(now: &Situation) -> Result<Probed, EngineError> {
    match monitor(now).await {
        Ok(session) => {
            let (mut probed, read_only) = look(&session).await?;
            if let Err(error) = as_primary(now, &session, &mut probed, read_only).await {
                probed.problem = Some(error.to_string());
            }
            Ok(probed)
        }
        Err(error) => {
            let (probed, _) = look(&local(now, "postgres").await?).await?;
            Ok(Probed { problem: Some(error.to_string()), ..probed })
        }
    }
}

async fn look(session: &Session) -> Result<(Probed, bool), EngineError> {
    let row = one(session, "look at the server", LOOK).await?;
    Ok((read(&row)?, flag(&row, "read_only")?))
}

async fn as_primary(
    now: &Situation,
    session: &Session,
    probed: &mut Probed,
    read_only: bool,
) -> Result<(), EngineError> {
    if !probed.primary {
        return Ok(());
    }
    if now.config.archive.is_some() {
        archiver(session, probed).await?;
    }
    if read_only { Ok(()) } else { write(session, &now.pod).await }
}

async fn write(session: &Session, pod: &str) -> Result<(), EngineError> {
    let written = session.client.execute(WRITE, &[&pod]).await;
    written.map(|_| ()).map_err(|error| refused("write", &error))
}

async fn archiver(session: &Session, probed: &mut Probed) -> Result<(), EngineError> {
    let row = one(session, "look at the archiver", ARCHIVER).await?;
    probed.archived_until = get(&row, "archived")?;
    if flag(&row, "failing")? {
        let segment: Option<String> = get(&row, "last_failed_wal")?;
        let segment = segment.unwrap_or_default();
        probed.archive_problem = Some(format!("the segment {segment} of the log could not be archived"));
    }
    Ok(())
}

fn read(row: &Row) -> Result<Probed, EngineError> {
    let version: String = get(row, "version")?;
    let position: Option<String> = get(row, "position")?;
    let timeline: Option<i32> = get(row, "timeline")?;
    let epoch = timeline.and_then(|timeline| u32::try_from(timeline).ok()).unwrap_or(0);
    let offset = position.as_deref().map(lsn).transpose()?.unwrap_or(0);
    let pending: Option<Vec<String>> = get(row, "pending")?;
    Ok(Probed {
        version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        primary: !flag(row, "recovery")?,
        position: Position { epoch, offset },
        streaming: flag(row, "streaming")?,
        lag_bytes: get::<Option<i64>>(row, "lag")?.map(|lag| lag.max(0)),
        data_bytes: get(row, "bytes")?,
        pending_restart: pending.unwrap_or_default(),
        archived_until: None,
        archive_problem: None,
        problem: None,
    })
}

async fn one(session: &Session, what: &str, statement: &str) -> Result<Row, EngineError> {
    session.client.query_one(statement, &[]).await.map_err(|error| refused(what, &error))
}

fn flag(row: &Row, name: &str) -> Result<bool, EngineError> {
    get(row, name)
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, EngineError> {
    row.try_get(name).map_err(|error| refused(&format!("read {name}"), &error))
}
