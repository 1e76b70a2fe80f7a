//! What the runner asks of an engine: the trait that each driver fills, and the words both share.
//!
//! Everything about who is primary, about processes, probes and files of the pod is on this
//! side of the trait; everything that speaks the engine's own language is on the other.
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use culvert_resources::Why;
use culvert_resources::instance::InstanceConfig;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::args::Folders;
use crate::credentials::Credentials;
use crate::filling::Filling;

/// What an instance knows when it is asked to do something.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Where things are.
    pub folders: Arc<Folders>,
    /// Name of this pod.
    pub pod: String,
    /// What it shall be.
    pub config: Arc<InstanceConfig>,
    /// Passwords that shall be in force.
    pub credentials: Arc<Credentials>,
    /// Standbys that commits wait for.
    pub required: Arc<[String]>,
    /// Whether new writes are refused, because the volume is nearly full.
    pub read_only: bool,
    /// Whether the data that is there was tried again and again and does not come up.
    pub distrusted: bool,
    /// Where to tell how far the filling from a source has come.
    pub filling: Filling,
}

/// Another member of the database, as it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Name of its pod.
    pub pod: String,
    /// Host.
    pub host: String,
    /// Port of its engine.
    pub port: u16,
    /// Port of its runner.
    pub runner_port: u16,
}

/// How far the log has come. A greater epoch (timeline) outranks any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Grows by each promotion; 0 for an engine that knows none.
    pub epoch: u32,
    /// Bytes.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, offset) = text.split_once('/').unwrap_or(("", ""));
        Ok(Self { epoch: epoch.parse()?, offset: offset.parse()? })
    }
}

/// What lies on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Empty,
    /// Something that was not finished, and is to be made anew.
    Unfinished,
    /// Data that can be started.
    Whole {
        /// The engine's id of it, the same on all members.
        identity: String,
        /// Whether it was left by a primary.
        led: bool,
        /// How far its log goes at least.
        position: Position,
    },
}

/// What an instance is to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows the peer; none while no primary is known.
    Replica(Option<Peer>),
}

/// The engine's process: how it is started and ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<String>,
    /// Its environment besides the pod's; never a secret.
    pub env: Vec<(String, String)>,
    /// Signal that lets it end in order, with all written to disk.
    pub stop: rustix::process::Signal,
    /// Signal that ends it now, as a crash would.
    pub abort: rustix::process::Signal,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probed {
    /// Exact version that runs.
    pub version: String,
    /// Whether the engine takes writes.
    pub primary: bool,
    /// How far the log has come: written on a primary, received on a replica.
    pub position: Position,
    /// Whether it receives the log from a primary now.
    pub streaming: bool,
    /// Bytes behind the primary, as far as it knows.
    pub lag_bytes: Option<i64>,
    /// Bytes of data.
    pub data_bytes: Option<i64>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<String>,
    /// RFC 3339: when the newest archived piece of the log was archived.
    pub archived_until: Option<String>,
    /// Why archiving fails now.
    pub archive_problem: Option<String>,
    /// What was wrong although the engine runs, such as a login or a write that failed.
    pub problem: Option<String>,
}

/// A standby, as the primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// Name of its pod.
    pub pod: String,
    /// Whether it receives the log now, rather than catching up.
    pub streaming: bool,
    /// How far it has written the log to its disk.
    pub flushed: Position,
}

/// One number for `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name, such as `culvert_postgresql_connections`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it only grows.
    pub counter: bool,
    /// Labels; never names of a tenant's objects.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// Why an engine did not do what it was asked for.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A file.
    #[error("{what}")]
    File {
        /// What was done with which file.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program that failed, with the end of what it said.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its standard error.
        said: String,
    },
    /// The engine did not answer, or refused.
    #[error("{what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it said.
        why: String,
    },
    /// It took longer than it may.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Late {
        /// What was done.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// A cause that a person has to mend; trying again does not help.
    #[error("{}", .0.message)]
    Stuck(Box<Why>),
}

impl EngineError {
    /// A file that could not be worked with.
    pub fn file(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::File { what: what.into(), source }
    }

    /// A question that was refused.
    pub fn refused(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Refused { what: what.into(), why: why.to_string() }
    }
}

/// A database engine, as the runner drives it. Every method may be called again after a crash in its middle.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Looks at the volume; starts nothing.
    async fn inspect(&self, now: &Situation) -> Result<Data, EngineError>;

    /// Makes the first data, empty or from the source in the configuration. The data is [`Data::Unfinished`] until
    /// this has ended.
    async fn initialise(&self, now: &Situation) -> Result<(), EngineError>;

    /// Makes the data a copy of the primary's: mends what is there if that is sound, else fetches all.
    async fn join(&self, now: &Situation, primary: &Peer) -> Result<(), EngineError>;

    /// Writes the engine's configuration for a role. True when something changed.
    async fn configure(&self, now: &Situation, role: &Role) -> Result<bool, EngineError>;

    /// How the process is started.
    fn launch(&self, now: &Situation) -> Result<Launch, EngineError>;

    /// Makes the running engine read its configuration again.
    async fn reload(&self, now: &Situation) -> Result<(), EngineError>;

    /// Makes a running replica primary; returns when it takes writes.
    async fn promote(&self, now: &Situation) -> Result<(), EngineError>;

    /// On a primary: users, passwords and databases as they shall be. Asked after each start, promotion and change of
    /// credentials.
    async fn settle(&self, now: &Situation) -> Result<(), EngineError>;

    /// On a replica: uses the passwords as they shall be from now on.
    async fn rotate(&self, now: &Situation) -> Result<(), EngineError>;

    /// Logs in; writes on a primary, reads on a replica.
    async fn probe(&self, now: &Situation) -> Result<Probed, EngineError>;

    /// Numbers for `/metrics`.
    async fn metrics(&self, now: &Situation) -> Result<Vec<Sample>, EngineError>;

    /// What else the engine needs beside it while the runner runs; until the token is cancelled.
    async fn attend(&self, _folders: &Folders, stop: CancellationToken) -> Result<(), EngineError> {
        stop.cancelled().await;
        Ok(())
    }

    /// On a primary: the standbys it feeds.
    async fn standbys(&self, _now: &Situation) -> Result<Vec<Standby>, EngineError> {
        Ok(Vec::new())
    }

    /// On a running primary: brings `now.required` into force; returns the position of the log before which a commit
    /// may have been acknowledged without them. With none required, commits go at once.
    async fn require(&self, _now: &Situation) -> Result<Position, EngineError> {
        Ok(Position::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_timeline_outranks_any_offset() {
        let old = Position { epoch: 1, offset: u64::MAX };
        let new = Position { epoch: 2, offset: 0 };
        assert!(new > old);
    }

    #[test]
    fn a_position_is_read_back() {
        let position = Position { epoch: 2, offset: 50_331_648 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "1", "1/", "/1", "a/1", "1/-1"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
