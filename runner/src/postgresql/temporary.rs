//! A server that runs only while a new database is filled.
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use super::connect::local;
use super::programs::programs;
use crate::engine::{EngineError, Situation};
use crate::programs::path;

/// How long an empty server may take to start.
const START: Duration = Duration::from_secs(120);
/// Characters of its last words that are kept.
const WIDTH: usize = 300;

/// The server; it is killed when this is dropped.
pub(super) struct Temporary {
    child: Child,
    last_words: Arc<Mutex<String>>,
}

impl Temporary {
    /// Starts it.
    pub(super) fn start(now: &Situation) -> Result<Self, EngineError> {
        let failed = |error| EngineError::file("start the server", error);
        let mut command = Command::new(programs(now).join("postgres"));
        command
            .arg("-D")
            .arg(now.folders.data())
            .env_clear()
            .envs(path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C");
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let last_words = Arc::new(Mutex::new(String::new()));
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(listen(stream, last_words.clone()));
        }
        Ok(Self { child, last_words })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// With its last words, when it does not.
    pub(super) fn check(&mut self) -> Result<(), EngineError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(EngineError::Program {
                program: "postgres".to_owned(),
                status: status.to_string(),
                said: self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            }),
            Err(error) => Err(EngineError::file("wait for the server", error)),
        }
    }

    /// Waits until it lets the runner in.
    pub(super) async fn answers(&mut self, now: &Situation) -> Result<(), EngineError> {
        let began = std::time::Instant::now();
        while let Err(error) = local(now, "postgres").await {
            self.check()?;
            if began.elapsed() > START {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> Result<(), EngineError> {
        let failed = |error| EngineError::file("end the server", error);
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::INT).map_err(|error| failed(error.into()))?;
        }
        let status = self.child.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(EngineError::refused("end the server", format!("it ended with {status}")))
    }
}

/// Passes its log on, and remembers why it ended.
async fn listen(stream: ChildStderr, last_words: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(line, "the server says");
        if line.contains("FATAL:") || line.contains("PANIC:") {
            *last_words.lock().unwrap_or_else(PoisonError::into_inner) = line.chars().take(WIDTH).collect();
        }
    }
}
