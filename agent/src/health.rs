//! What the agent says of itself in a file, and how a probe judges it.
//!
//! The agent listens on nothing, so Kubernetes asks by running `health` beside
//! it. Alive: the file is fresh, so the agent's loop turns. Ready: connected, or
//! in reserve behind another agent of the same identity, which is that agent's
//! whole duty.
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::atomic;

/// How often the running agent writes its status.
pub const PERIOD: Duration = Duration::from_secs(5);

/// A status older than this is of a process that hangs or is gone.
pub const FRESH: Duration = Duration::from_secs(30);

/// Largest status file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Where the agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading its state.
    Starting,
    /// Redeeming its join token.
    Enrolling,
    /// Dialling the controller.
    Connecting,
    /// The controller welcomed it.
    Connected,
    /// Another agent of the same identity is connected.
    Standby,
    /// Told to stop, finishing its calls.
    Draining,
    /// Refused for good.
    Refused,
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Stable code of the cause.
    pub code: String,
    /// What happened.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do.
    pub next: String,
    /// Seconds since the Unix epoch.
    pub at: u64,
}

/// The agent's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when, seconds since the Unix epoch.
    pub since: u64,
    /// When this was written, seconds since the Unix epoch.
    pub updated: u64,
    /// End of the certificate, seconds since the Unix epoch.
    pub certificate_not_after: Option<u64>,
    /// Id of the cluster's record.
    pub cluster_id: Option<String>,
    /// Name of the cluster's record.
    pub cluster_name: Option<String>,
    /// Epoch of the session.
    pub epoch: Option<u64>,
    /// The last thing that went wrong; none once connected.
    pub last_error: Option<LastError>,
}

/// Why a probe fails.
#[derive(Debug, Error)]
pub enum Unhealthy {
    /// There is no status.
    #[error("the status file {0} cannot be read: {1}")]
    Unreadable(String, #[source] std::io::Error),
    /// The status is no status.
    #[error("the status file is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// It is too old.
    #[error("the agent wrote its status {0} s ago and should every {period} s", period = PERIOD.as_secs())]
    Stale(u64),
    /// The agent lives and is not connected.
    #[error("the agent is not connected: {0}")]
    NotReady(String),
}

impl Status {
    /// The status of an agent that begins.
    pub fn starting(now: SystemTime) -> Status {
        Status {
            version: crate::VERSION.to_owned(),
            phase: Phase::Starting,
            since: seconds(now),
            updated: seconds(now),
            certificate_not_after: None,
            cluster_id: None,
            cluster_name: None,
            epoch: None,
            last_error: None,
        }
    }

    /// Moves to another phase; staying in one keeps its beginning.
    pub fn enter(&mut self, phase: Phase, now: SystemTime) {
        if self.phase != phase {
            self.phase = phase;
            self.since = seconds(now);
        }
        if phase == Phase::Connected {
            self.last_error = None;
        } else {
            self.epoch = None;
        }
    }

    /// Judges the status as a probe does.
    ///
    /// # Errors
    /// [`Unhealthy`] says what is wrong.
    pub fn judge(&self, ready: bool, now: SystemTime) -> Result<(), Unhealthy> {
        // A clock that was set back must not look like a dead agent.
        let age = seconds(now).saturating_sub(self.updated);
        if age > FRESH.as_secs() {
            return Err(Unhealthy::Stale(age));
        }
        if !ready || matches!(self.phase, Phase::Connected | Phase::Standby) {
            return Ok(());
        }
        let reason = match &self.last_error {
            Some(error) => format!("{}: {}; {}", error.what, error.why, error.next),
            None => format!("{:?}", self.phase).to_lowercase(),
        };
        Err(Unhealthy::NotReady(reason))
    }

    /// Writes the status so that a probe never reads half of it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        atomic::write(path, &text)
    }
}

/// Reads and judges the status file of a running agent.
///
/// # Errors
/// [`Unhealthy`] says what is wrong.
pub fn probe(path: &Path, ready: bool, now: SystemTime) -> Result<Status, Unhealthy> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| Unhealthy::Unreadable(path.display().to_string(), error))?;
    let status: Status = serde_json::from_str(&text)?;
    status.judge(ready, now)?;
    Ok(status)
}

/// Seconds since the Unix epoch.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alive_is_fresh_and_ready_is_connected() {
        let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut status = Status::starting(start);
        assert!(status.judge(false, start).is_ok());
        assert!(matches!(status.judge(true, start), Err(Unhealthy::NotReady(_))));
        status.enter(Phase::Connected, start);
        assert!(status.judge(true, start + FRESH).is_ok());
        assert!(matches!(
            status.judge(true, start + FRESH + Duration::from_secs(1)),
            Err(Unhealthy::Stale(31))
        ));
        assert!(status.judge(true, start - Duration::from_secs(3600)).is_ok());
        status.enter(Phase::Standby, start);
        assert!(status.judge(true, start).is_ok());
    }

    #[test]
    fn the_file_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let now = SystemTime::now();
        assert!(matches!(probe(&path, false, now), Err(Unhealthy::Unreadable(..))));
        let mut status = Status::starting(now);
        status.last_error = Some(LastError {
            code: "dns".to_owned(),
            what: "a".to_owned(),
            why: "b".to_owned(),
            next: "c".to_owned(),
            at: 1,
        });
        status.write(&path).unwrap();
        assert_eq!(probe(&path, false, now).unwrap(), status);
        assert_eq!(probe(&path, true, now).unwrap_err().to_string(), "the agent is not connected: a: b; c");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(probe(&path, false, now), Err(Unhealthy::Damaged(_))));
    }
}
