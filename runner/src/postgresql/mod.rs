//! PostgreSQL: primary and streaming standbys, 15 and later.
//!
//! All files of the server are below `data` on the volume. The configuration is written whole before each start and
//! after each change, `postgresql.auto.conf` emptied: what runs is what the operator said. Sockets, the server's key and
//! files with passwords are in a folder in memory. The runner comes in through the socket, which lies in a folder that
//! only this pod's user may enter, and needs no password there: so a password can be changed, and a Secret that was lost
//! be put back, whatever the server has stored.
//!
//! Data is whole when a marker lies beside it, written last. It is removed before anything is done that leaves the data
//! half made, so a crash in the middle is seen at the next start.
//!
//! Mistakes a newcomer could make:
//! - To start data that has followed as a primary, by removing `standby.signal`: it would write on the old timeline.
//!   It is started as a standby and promoted.
//! - To take a list of synchronous standbys for being in force when the file has it (see `synchronous`).
mod conf;
mod configure;
mod connect;
mod control;
mod fill;
mod initialise;
mod join;
mod metrics;
mod probe;
mod programs;
mod settle;
mod synchronous;
mod temporary;
#[cfg(test)]
mod testing;

use std::time::Duration;

use async_trait::async_trait;
use culvert_resources::{WhoCanFix, Why};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::args::Folders;
use crate::engine::{
    Data, Engine, EngineError, Launch, Peer, Position, Probed, Role, Sample, Situation, Standby,
};
use crate::programs::Program;
use connect::{local, refused};
use control::Control;

/// The user that may do everything.
pub const ADMIN: &str = "culvert_admin";
/// The user that standbys fetch the log with.
pub const REPLICATION: &str = "culvert_replication";
/// The user that probes and metrics use.
pub const MONITOR: &str = "culvert_monitor";

/// How long a promotion may take, the end of recovery included.
const PROMOTION: Duration = Duration::from_secs(60);

/// The driver.
#[derive(Debug, Default)]
pub struct PostgreSql;

#[async_trait]
impl Engine for PostgreSql {
    async fn inspect(&self, now: &Situation) -> Result<Data, EngineError> {
        let data = now.folders.data();
        let whole = now.folders.volume.join(initialise::MARKER).exists() && data.join("PG_VERSION").exists();
        if !whole {
            let empty = std::fs::read_dir(&data).map_or(true, |mut entries| entries.next().is_none());
            return Ok(if empty { Data::Empty } else { Data::Unfinished });
        }
        check_major(now)?;
        let control = control_data(now).await?;
        let led = !is_standby(now);
        Ok(Data::Whole { identity: control.identity, led, position: control.position })
    }

    async fn initialise(&self, now: &Situation) -> Result<(), EngineError> {
        configure::secrets(now)?;
        match &now.config.source {
            Some(source) => fill::fill(now, source).await,
            None => initialise::empty(now).await,
        }
    }

    async fn join(&self, now: &Situation, primary: &Peer) -> Result<(), EngineError> {
        configure::secrets(now)?;
        let here = match self.inspect(now).await? {
            Data::Whole { .. } => Some(control_data(now).await?),
            Data::Empty | Data::Unfinished => None,
        };
        join::join(now, primary, here.as_ref(), !is_standby(now)).await
    }

    async fn configure(&self, now: &Situation, role: &Role) -> Result<bool, EngineError> {
        let least = match role {
            Role::Primary => Vec::new(),
            Role::Replica(_) => control_data(now).await?.least,
        };
        configure::configure(now, role, &least, &[])
    }

    fn launch(&self, now: &Situation) -> Result<Launch, EngineError> {
        Ok(Launch {
            program: programs::programs(now).join("postgres"),
            args: vec!["-D".to_owned(), now.folders.data().display().to_string()],
            env: vec![("TZ".to_owned(), "UTC".to_owned())],
            // Fast: sessions end, a checkpoint is made, standbys get all of the log.
            stop: Signal::INT,
            // Immediate.
            abort: Signal::QUIT,
        })
    }

    async fn reload(&self, now: &Situation) -> Result<(), EngineError> {
        reload(now).await
    }

    async fn promote(&self, now: &Situation) -> Result<(), EngineError> {
        let session = local(now, "postgres").await?;
        let seconds = i32::try_from(PROMOTION.as_secs()).unwrap_or(i32::MAX);
        let row = session
            .client
            .query_one(
                "SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, $1) ELSE true END \
                 FROM set_config('statement_timeout', '0', false)",
                &[&seconds],
            )
            .await
            .map_err(|error| refused("promote", &error))?;
        match row.try_get::<_, bool>(0) {
            Ok(true) => Ok(()),
            Ok(false) => Err(EngineError::Late { what: "the promotion".to_owned(), limit: PROMOTION }),
            Err(error) => Err(refused("promote", &error)),
        }
    }

    async fn settle(&self, now: &Situation) -> Result<(), EngineError> {
        settle::settle(now).await
    }

    async fn rotate(&self, now: &Situation) -> Result<(), EngineError> {
        configure::secrets(now)?;
        // Slots are the primary's; those from when this was primary would keep its log for ever.
        let session = local(now, "postgres").await?;
        settle::drop_slots(&session, &[]).await
    }

    async fn probe(&self, now: &Situation) -> Result<Probed, EngineError> {
        probe::probe(now).await
    }

    async fn metrics(&self, now: &Situation) -> Result<Vec<Sample>, EngineError> {
        metrics::metrics(now).await
    }

    async fn attend(&self, folders: &Folders, stop: CancellationToken) -> Result<(), EngineError> {
        let served = crate::wal::serve(folders, stop).await;
        served.map_err(|error| EngineError::file("serve the commands of the log's archive", error))
    }

    async fn standbys(&self, now: &Situation) -> Result<Vec<Standby>, EngineError> {
        synchronous::standbys(now).await
    }

    async fn require(&self, now: &Situation) -> Result<Position, EngineError> {
        self.configure(now, &Role::Primary).await?;
        synchronous::enforce(now).await
    }
}

async fn reload(now: &Situation) -> Result<(), EngineError> {
    let session = local(now, "postgres").await?;
    let told = session.client.batch_execute("SELECT pg_reload_conf()").await;
    told.map_err(|error| refused("reload the configuration", &error))
}

fn is_standby(now: &Situation) -> bool {
    now.folders.data().join("standby.signal").exists()
}

async fn control_data(now: &Situation) -> Result<Control, EngineError> {
    let data = now.folders.data().display().to_string();
    let program = Program::new(programs::programs(now).join("pg_controldata"));
    control::parse(&program.args(["--pgdata", &data]).run().await?)
}

/// Data of another major version cannot be started.
fn check_major(now: &Situation) -> Result<(), EngineError> {
    let file = now.folders.data().join("PG_VERSION");
    let text = std::fs::read_to_string(&file).map_err(|error| EngineError::file("read PG_VERSION", error))?;
    let (data, wanted) = (programs::major(text.trim()), programs::major(&now.config.version));
    if data == wanted {
        return Ok(());
    }
    Err(EngineError::Stuck(Box::new(Why {
        code: "major_version".to_owned(),
        message: format!("the data is of PostgreSQL {data}, and {wanted} shall run"),
        who: WhoCanFix::Developer,
        next: format!("set the version back to {data}, and restore a backup into a new service for {wanted}"),
        object: None,
    })))
}

/// A line of a password file (libpq's `.pgpass`) for a user, wherever the server is.
fn pgpass(user: &str, password: &str) -> zeroize::Zeroizing<String> {
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    zeroize::Zeroizing::new(format!("*:*:*:{user}:{escaped}\n"))
}
