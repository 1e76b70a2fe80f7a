//! The files of a server, by `pg_basebackup`, in one tar that holds the log it needs itself.
//!
//! A temporary replication slot keeps the log from being recycled while the copy runs. It goes with our
//! session, so also when this is killed.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::program::{Programs, Running};
use super::server::{Server, query_failed};
use crate::backup::dump::{About, Dump, DumpStream, Dumped};
use crate::backup::error::JobError;
use crate::backup::manifest::{Content, Log};
use crate::wal::Lsn;

/// What the server tells of itself.
pub(super) const ABOUT: &str = "select split_part(current_setting('server_version'), ' ', 1), \
     (select coalesce(sum(pg_database_size(oid)), 0)::bigint from pg_database where datallowconn)";
/// Now, by the server's clock.
pub(super) const NOW: &str =
    "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
const SYSTEM: &str = "select (select system_identifier::text from pg_control_system()), \
     (select setting::bigint from pg_settings where name = 'wal_segment_size')";
const SLOT: &str =
    "select pg_create_physical_replication_slot('culvert_backup_' || pg_backend_pid(), true, true)";

/// A copy of a server's files.
pub struct Physical {
    sql: Server,
    replication: Server,
    programs: Option<Programs>,
    archived: bool,
    session: Option<Session>,
    running: Arc<Mutex<Option<Running>>>,
    said: Arc<Mutex<String>>,
}

struct Session {
    client: Client,
    programs: Programs,
    system_identifier: String,
    segment_bytes: u64,
    begun: bool,
}

impl Physical {
    /// `sql` logs in as a superuser, `replication` as who may copy. `archived` says that the server's log
    /// goes into the same folder of the target.
    #[must_use]
    pub fn new(sql: Server, replication: Server, programs: Option<Programs>, archived: bool) -> Self {
        Self {
            sql,
            replication,
            programs,
            archived,
            session: None,
            running: Arc::default(),
            said: Arc::default(),
        }
    }
}

#[async_trait]
impl Dump for Physical {
    async fn begin(&mut self) -> Result<About, JobError> {
        let client = self.sql.connect("postgres").await?;
        let about = client.query_one(ABOUT, &[]).await.map_err(|error| query_failed(&error))?;
        let (version, bytes): (String, i64) = (about.get(0), about.get(1));
        let system = client.query_one(SYSTEM, &[]).await.map_err(|error| query_failed(&error))?;
        let (system_identifier, segment_bytes): (String, i64) = (system.get(0), system.get(1));
        client.execute(SLOT, &[]).await.map_err(|error| query_failed(&error))?;
        let programs = match &self.programs {
            Some(programs) => programs.clone(),
            None => Programs::find(major(&version))?,
        };
        let segment_bytes = segment_bytes.unsigned_abs();
        self.session = Some(Session { client, programs, system_identifier, segment_bytes, begun: false });
        Ok(About { version, data_bytes: Some(bytes.unsigned_abs()) })
    }

    async fn next(&mut self) -> Result<Option<DumpStream>, JobError> {
        let session = self.session.as_mut().ok_or_else(not_begun)?;
        if std::mem::replace(&mut session.begun, true) {
            return Ok(None);
        }
        let args = arguments(&self.replication.conninfo("postgres"));
        let (stdout, running) = session.programs.read_from("pg_basebackup", &args)?;
        *self.running.lock().await = Some(running);
        let (running, said) = (Arc::clone(&self.running), Arc::clone(&self.said));
        Ok(Some(DumpStream {
            name: "base".to_owned(),
            format: "tar",
            content: Content::Files,
            database: None,
            reader: Box::pin(stdout),
            ended: Box::pin(async move {
                let running = running.lock().await.take().ok_or_else(not_begun)?;
                *said.lock().await = running.end().await?;
                Ok(())
            }),
        }))
    }

    async fn finish(&mut self) -> Result<Dumped, JobError> {
        let session = self.session.take().ok_or_else(not_begun)?;
        let now = session.client.query_one(NOW, &[]).await.map_err(|error| query_failed(&error))?;
        let range = range(&self.said.lock().await)?;
        Ok(Dumped {
            log: Some(Log {
                start: range.start,
                end: range.end,
                timeline: range.timeline,
                segment_bytes: session.segment_bytes,
                system_identifier: session.system_identifier,
                archived: self.archived,
            }),
            at: timestamp(now.get(0))?,
        })
    }
}

pub(super) fn not_begun() -> JobError {
    JobError::engine("dump_failed", "a dump was continued that had not begun")
}

pub(super) fn timestamp(text: &str) -> Result<Timestamp, JobError> {
    text.parse().map_err(|_| JobError::engine("engine_query", format!("{text:?} is no time")))
}

/// `17` of `17.2`, and of `17beta1`.
pub(super) fn major(version: &str) -> &str {
    let end = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end).unwrap_or(version)
}

fn arguments(conninfo: &str) -> Vec<String> {
    ["-D", "-", "-F", "tar", "-X", "fetch", "-c", "fast", "-w", "-v", "-l", "culvert", "-d", conninfo]
        .map(str::to_owned)
        .to_vec()
}

struct Range {
    start: Lsn,
    end: Lsn,
    timeline: u32,
}

/// `pg_basebackup -v` says `write-ahead log start point: 0/2000028 on timeline 1` and, when it ends,
/// `write-ahead log end point: 0/2000100`.
fn range(said: &str) -> Result<Range, JobError> {
    let after =
        |words: &str| said.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.trim());
    let read = || {
        let (start, timeline) = after("log start point:")?.split_once(" on timeline ")?;
        let end = after("log end point:")?;
        Some(Range {
            start: start.parse().ok()?,
            end: end.parse().ok()?,
            timeline: timeline.trim().parse().ok()?,
        })
    };
    read().ok_or_else(|| JobError::engine("dump_failed", "pg_basebackup did not say which log it needs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_the_log_is_read_from_what_is_said() {
        let said = "pg_basebackup: initiating base backup, waiting for checkpoint to complete\n\
             pg_basebackup: checkpoint completed\n\
             pg_basebackup: write-ahead log start point: 0/2000028 on timeline 3\n\
             NOTICE:  all required WAL segments have been archived\n\
             pg_basebackup: write-ahead log end point: 16/2000100\n\
             pg_basebackup: base backup completed\n";
        let range = range(said).unwrap();
        assert_eq!(
            (range.start, range.end, range.timeline),
            (Lsn(0x200_0028), Lsn((0x16 << 32) + 0x200_0100), 3)
        );
        assert!(super::range("pg_basebackup: base backup completed").is_err());
    }

    #[test]
    fn a_major_version_is_what_stands_before_the_first_point() {
        assert_eq!([major("17.2"), major("18beta1"), major("15")], ["17", "18", "15"]);
    }
}
