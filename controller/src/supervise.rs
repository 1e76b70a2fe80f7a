//! The only place that starts tasks: each says what its failure means.
//!
//! A bare `tokio::spawn` loses the panic of its task, outlives the shutdown, and tells nobody
//! whether the process can go on without it. So every task is started here, under one of three
//! meanings of failure:
//!
//! - [`Supervisor::work`]: serves one connection or one call. Its failure concerns nobody else;
//!   a panic is logged.
//! - [`Supervisor::keep`]: must run for the life of the process and can begin again from
//!   nothing. An error or a panic is logged and the task is started anew, after a pause.
//! - [`Supervisor::vital`]: without it the process is of no use. Its end, while nobody asked to
//!   stop, stops the process with an error.
//!
//! Mistakes a newcomer could make: to wait for work inside a kept task without looking at the
//! stop token ([`Supervisor::stopping`]), which makes each shutdown last the whole grace time;
//! and to start a kept task that has state worth keeping: after a restart it is gone.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first pause before a kept task is started anew; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Starts tasks and waits for their end. Clones share everything.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<Failure>>>,
}

/// A vital task ended though nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task} ended: {cause}")]
pub struct Failure {
    /// The task's name.
    pub task: &'static str,
    /// Its error, or the text of its panic.
    pub cause: String,
}

impl Supervisor {
    /// `stop` is the process's shutdown: it is listened to, and cancelled when a vital task fails.
    pub fn new(stop: CancellationToken) -> Self {
        Supervisor { tasks: TaskTracker::new(), stop, failure: Arc::default() }
    }

    /// Ends when the process shall stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task whose failure is its own affair.
    pub fn work(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(task = name, panic = panic_text(panic.as_ref()), "a task panicked");
            }
        });
    }

    /// Starts a task that is made anew by `make` whenever it fails. It ends by returning `Ok`,
    /// or when the process stops.
    pub fn keep<M, F, E>(&self, name: &'static str, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = tokio::time::Instant::now();
                let Err(cause) = outcome(make()).await else { return };
                if begun.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                tracing::error!(task = name, %cause, pause_ms = pause.as_millis() as u64, "a task failed and is started anew");
                if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Starts a task without which the process is of no use.
    pub fn vital<F, E>(&self, name: &'static str, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send,
    {
        let supervisor = self.clone();
        self.tasks.spawn(async move {
            let cause = match outcome(future).await {
                Ok(()) if supervisor.stop.is_cancelled() => return,
                Ok(()) => "it returned".to_owned(),
                Err(cause) => cause,
            };
            tracing::error!(task = name, %cause, "a vital task failed; the process stops");
            supervisor
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(Failure { task: name, cause });
            supervisor.stop.cancel();
        });
    }

    /// Waits for all tasks, at most `grace`; those still running then are named by their number
    /// and end with the runtime. An error if a vital task failed.
    pub async fn finish(self, grace: Duration) -> Result<(), Failure> {
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                grace_s = grace.as_secs(),
                "the grace time is over; unfinished tasks are cut off"
            );
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// hyper starts a task per HTTP/2 stream through this.
impl<F> hyper::rt::Executor<F> for Supervisor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.work("http stream", future);
    }
}

async fn outcome<E: Display>(future: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("panic: {}", panic_text(panic.as_ref()))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_vital_failure_stops_the_process_and_is_returned() {
        let supervisor = Supervisor::new(CancellationToken::new());
        supervisor.vital("door", async { Err("no socket") });
        supervisor.stopping().clone().cancelled().await;
        let failure = supervisor.finish(Duration::from_secs(5)).await;
        assert_eq!(failure, Err(Failure { task: "door", cause: "no socket".into() }));
    }

    #[tokio::test]
    async fn a_vital_task_may_end_once_the_process_stops() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let stop = supervisor.stopping().clone();
        supervisor.vital("door", async move {
            stop.cancelled().await;
            Ok::<(), &str>(())
        });
        supervisor.stopping().cancel();
        assert_eq!(supervisor.finish(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_kept_task_is_made_anew_after_an_error_and_after_a_panic() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        supervisor.keep("sweep", move || {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err("first"),
                    1 => panic!("second"),
                    _ => Ok(()),
                }
            }
        });
        assert_eq!(supervisor.finish(Duration::from_secs(60)).await, Ok(()));
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_grace_time_bounds_the_wait() {
        let supervisor = Supervisor::new(CancellationToken::new());
        supervisor.work("stuck", std::future::pending());
        let begun = tokio::time::Instant::now();
        assert_eq!(supervisor.finish(Duration::from_millis(50)).await, Ok(()));
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
