//! Tells how the agent is: to the log, once per cause, and to the status file.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::causes::{Cause, CauseLog};
use crate::health::{LastError, Phase, Status, seconds};
use crate::identity::Identity;

/// Shared by everything that has news of the agent's life.
#[derive(Debug, Clone)]
pub struct Reporter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    path: PathBuf,
    start: Instant,
}

#[derive(Debug)]
struct State {
    status: Status,
    causes: CauseLog,
}

impl Reporter {
    /// A reporter that writes its status to `path`.
    pub fn new(path: PathBuf) -> Reporter {
        let state = State { status: Status::starting(SystemTime::now()), causes: CauseLog::default() };
        Reporter {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                changed: Notify::new(),
                path,
                start: Instant::now(),
            }),
        }
    }

    /// The agent moves to another phase of its life.
    pub fn enter(&self, phase: Phase) {
        self.lock().status.enter(phase, SystemTime::now());
        self.inner.changed.notify_one();
    }

    /// The controller welcomed the agent.
    pub fn connected(&self, epoch: u64) {
        let attempts = {
            let mut state = self.lock();
            state.status.enter(Phase::Connected, SystemTime::now());
            state.status.epoch = Some(epoch);
            state.causes.clear()
        };
        if let Some(attempts) = attempts {
            tracing::info!(attempts, "connected again after failed attempts");
        }
        self.inner.changed.notify_one();
    }

    /// An attempt failed.
    pub fn failed(&self, cause: &Cause) {
        let mut state = self.lock();
        state.causes.report(cause, self.inner.start.elapsed());
        state.status.last_error = Some(LastError {
            code: cause.code.to_owned(),
            what: cause.what.clone(),
            why: cause.why.clone(),
            next: cause.next.clone(),
            at: seconds(SystemTime::now()),
        });
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The agent has this identity now.
    pub fn identity(&self, identity: &Identity) {
        let mut state = self.lock();
        state.status.certificate_not_after = Some(seconds(identity.not_after));
        state.status.cluster_id = Some(identity.cluster_id.clone());
        state.status.cluster_name = Some(identity.cluster_name.clone());
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The status as it is now.
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// Writes the status on every change and at least each `period`, until
    /// `stop`; then once more.
    pub async fn keep_written(&self, period: Duration, stop: CancellationToken) {
        let mut problem = None;
        loop {
            let stopping = stop.is_cancelled();
            self.write(&mut problem).await;
            if stopping {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.inner.changed.notified() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    async fn write(&self, problem: &mut Option<String>) {
        let status = {
            let mut state = self.lock();
            state.status.updated = seconds(SystemTime::now());
            state.status.clone()
        };
        let path = self.inner.path.clone();
        let written = tokio::task::spawn_blocking(move || status.write(&path)).await;
        let failure = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if failure != *problem {
            if let Some(error) = &failure {
                tracing::error!(error, path = %self.inner.path.display(), "status file cannot be written, probes will fail");
            }
            *problem = failure;
        }
    }

    /// Nothing that holds the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe;

    #[tokio::test]
    async fn news_reaches_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let reporter = Reporter::new(path.clone());
        let stop = CancellationToken::new();
        let (writer, token) = (reporter.clone(), stop.clone());
        let task = tokio::spawn(async move { writer.keep_written(Duration::from_secs(3600), token).await });
        reporter.failed(&Cause::new("dns", "a", "b", "c"));
        reporter.connected(5);
        stop.cancel();
        task.await.unwrap();
        let status = probe(&path, true, SystemTime::now()).unwrap();
        assert_eq!((status.epoch, status.last_error), (Some(5), None));
    }
}
