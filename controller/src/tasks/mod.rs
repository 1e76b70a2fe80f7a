//! What is done again and again: small reconcilers, and the loop that runs them.
//!
//! A task takes no input: it reads how things are, acts, and may be run at any time
//! and any number of times. So the rare path (a wake-up that was lost, a process
//! that was killed in between) and the common one are the same code. A timer runs
//! each; a wake-up runs it sooner.
//!
//! Mistakes a newcomer could make: to give a task something to do by a message,
//! which is lost with the process (write the intent into the store instead); and to
//! hold a transaction over more than one thing of a list.

mod cut_unwanted;
mod give_up_attempts;
mod last_seen;
mod operations;
mod place_targets;
mod sweep;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::app::{App, Error};
use crate::supervise::Supervisor;

/// A reconciler.
#[async_trait]
pub trait Task: Send + Sync {
    /// Its name in the log.
    fn name(&self) -> &'static str;

    /// How often it runs though nobody wakes it.
    fn every(&self) -> Duration;

    /// What wakes it sooner, if anything does.
    fn wake(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Brings things to how they should be; gives how many it had to change.
    async fn activate(&self) -> Result<u64, Error>;
}

/// All tasks.
#[must_use]
pub fn all(app: &App, supervisor: &Supervisor) -> Vec<Box<dyn Task>> {
    vec![
        Box::new(sweep::Sweep(app.clone())),
        Box::new(give_up_attempts::GiveUpAttempts(app.clone())),
        Box::new(last_seen::LastSeen(app.clone())),
        Box::new(cut_unwanted::CutUnwanted(app.clone())),
        Box::new(operations::Operations::new(app.clone(), supervisor.clone())),
        Box::new(place_targets::PlaceTargets(app.clone())),
    ]
}

/// Runs all tasks until the process stops.
pub fn start(app: &App, supervisor: &Supervisor) {
    for task in all(app, supervisor) {
        let (name, stop) = (task.name(), supervisor.stopping().clone());
        let task: std::sync::Arc<dyn Task> = task.into();
        supervisor.keep(name, move || {
            let (task, stop) = (task.clone(), stop.clone());
            async move {
                stop.run_until_cancelled(drive(task.as_ref())).await;
                Ok::<(), Error>(())
            }
        });
    }
}

/// Runs one task for ever. A failure is logged, and the next run is due as usual:
/// the task reads everything anew.
async fn drive(task: &dyn Task) {
    let mut wake = task.wake();
    loop {
        let begun = Instant::now();
        match task.activate().await {
            Ok(0) => {}
            Ok(changed) => tracing::debug!(task = task.name(), changed, "task changed things"),
            Err(error) => {
                tracing::warn!(task = task.name(), error = &error as &dyn std::error::Error, "task failed");
            }
        }
        pause(begun + task.every(), &mut wake).await;
    }
}

/// Until `due`, or a wake-up.
async fn pause(due: Instant, wake: &mut Option<watch::Receiver<u64>>) {
    let Some(bell) = wake else { return sleep_until(due).await };
    let lost = tokio::select! {
        () = sleep_until(due) => false,
        rung = bell.changed() => rung.is_err(),
    };
    if lost {
        // Nobody can ring any more; the timer is left.
        *wake = None;
        sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Counted {
        runs: AtomicU64,
        every: Duration,
        told: watch::Sender<u64>,
        bell: Option<watch::Receiver<u64>>,
    }

    #[async_trait]
    impl Task for Counted {
        fn name(&self) -> &'static str {
            "counted"
        }

        fn every(&self) -> Duration {
            self.every
        }

        fn wake(&self) -> Option<watch::Receiver<u64>> {
            self.bell.clone()
        }

        async fn activate(&self) -> Result<u64, Error> {
            let runs = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
            self.told.send_replace(runs);
            if runs == 1 { Err(Error::NotFound("first run")) } else { Ok(0) }
        }
    }

    /// Drives a task until `watched` is through; at most half a minute.
    async fn with(task: &Counted, watched: impl Future<Output = ()>) {
        tokio::select! {
            () = drive(task) => panic!("a task ends only with the process"),
            done = tokio::time::timeout(Duration::from_secs(30), watched) => {
                assert!(done.is_ok(), "only {} runs in 30 s", task.runs.load(Ordering::SeqCst));
            }
        }
    }

    #[tokio::test]
    async fn a_task_runs_by_timer_and_survives_a_failure() {
        let (told, mut runs) = watch::channel(0);
        let task = Counted { runs: AtomicU64::new(0), every: Duration::from_millis(5), told, bell: None };
        with(&task, async {
            runs.wait_for(|n| *n >= 3).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_task_runs_when_it_is_woken() {
        let (told, mut runs) = watch::channel(0);
        let (ring, bell) = watch::channel(0);
        let every = Duration::from_secs(3600);
        let task = Counted { runs: AtomicU64::new(0), every, told, bell: Some(bell) };
        with(&task, async {
            for run in 1..4 {
                runs.wait_for(|n| *n == run).await.unwrap();
                ring.send_replace(run);
            }
        })
        .await;
    }
}
