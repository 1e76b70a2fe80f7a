//! Ends the engine when the hold on the Lease has run out, on a thread of its own: it works while everything else of
//! this process is stuck.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Time after which an engine that was told to end at once is killed.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Shared by the keeper, who says until when, and the member, who says which process.
#[derive(Debug, Clone)]
pub struct Fence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    hold: Hold,
    writer: Option<(Pid, Signal)>,
    told: bool,
    closed: bool,
}

/// Until when the engine may take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// Without end: nobody else may take the Lease.
    Open,
}

impl Fence {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let state = State { hold: Hold::None, writer: None, told: false, closed: false };
        let fence = Self(Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new() }));
        let watched = fence.clone();
        std::thread::Builder::new().name("fence".to_owned()).spawn(move || watched.watch())?;
        Ok(fence)
    }

    /// Sets until when the engine may take writes.
    pub fn hold(&self, hold: Hold) {
        self.change(|state| state.hold = hold);
    }

    /// Whether the engine may take writes now.
    #[must_use]
    pub fn open(&self) -> bool {
        left(self.lock().hold, Instant::now()) != Some(Duration::ZERO)
    }

    /// Names the process that may take writes, and the signal that ends it; none when there is none.
    pub fn writer(&self, writer: Option<(Pid, Signal)>) {
        self.change(|state| (state.writer, state.told) = (writer, false));
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.closed {
            let wait = match (state.writer, left(state.hold, Instant::now())) {
                (Some((pid, signal)), Some(Duration::ZERO)) => {
                    let signal = if state.told { Signal::KILL } else { signal };
                    // An error means that it has ended.
                    let _ = kill_process(pid, signal);
                    if !state.told {
                        tracing::warn!("the Lease could not be renewed in time: the engine was ended");
                    }
                    state.told = true;
                    LAST_WORD
                }
                (Some(_), Some(left)) => left,
                _ => Duration::from_secs(3600),
            };
            state = match self.0.changed.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Time left; none when there is no end.
fn left(hold: Hold, now: Instant) -> Option<Duration> {
    match hold {
        Hold::None => Some(Duration::ZERO),
        Hold::Until(until) => Some(until.saturating_duration_since(now)),
        Hold::Open => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn process() -> (std::process::Child, Pid) {
        let child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        (child, pid)
    }

    fn ends_within(child: &mut std::process::Child, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn the_process_is_ended_when_the_hold_runs_out() {
        let fence = Fence::start().unwrap();
        let (mut child, pid) = process();
        fence.hold(Hold::Until(Instant::now() + Duration::from_millis(200)));
        fence.writer(Some((pid, Signal::TERM)));
        assert!(fence.open());
        assert!(ends_within(&mut child, Duration::from_secs(10)));
        assert!(!fence.open());
        fence.close();
    }

    #[test]
    fn one_that_does_not_listen_is_killed_and_one_that_is_held_is_let_alone() {
        let fence = Fence::start().unwrap();
        let (mut child, pid) = process();
        fence.hold(Hold::Open);
        // A signal that `sleep` does not end by.
        fence.writer(Some((pid, Signal::CONT)));
        assert!(!ends_within(&mut child, Duration::from_millis(300)));
        fence.hold(Hold::None);
        assert!(ends_within(&mut child, Duration::from_secs(10)));
        fence.close();
    }
}
