//! What this instance tells about itself: written by the member, read by the HTTP side.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use culvert_resources::instance::InstanceStatus;

use crate::clock::Clock;
use crate::engine::Situation;

/// Age at which what a probe found says nothing any more.
pub const FRESH: Duration = Duration::from_secs(15);
/// Time without a turn of the member after which the runner counts as stuck.
pub const STUCK: Duration = Duration::from_secs(60);

/// Shared; copies are the same board.
#[derive(Debug, Clone)]
pub struct Board {
    clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    status: InstanceStatus,
    probed: Option<Duration>,
    turned: Duration,
    situation: Option<Situation>,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let status = InstanceStatus { role: "starting".to_owned(), ..InstanceStatus::default() };
        let inner = Inner { status, probed: None, turned: clock.now(), situation: None };
        Self { clock, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Writes: what is told, when the engine was found well last, and how it is asked for numbers while it runs.
    pub fn write(&self, status: InstanceStatus, probed: Option<Duration>, situation: Option<Situation>) {
        let now = self.clock.now();
        let mut inner = self.lock();
        *inner = Inner { status, probed, turned: now, situation };
    }

    /// What is told. An old probe is not told as health.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let now = self.clock.now();
        let inner = self.lock();
        let fresh = inner.probed.is_some_and(|at| now.saturating_sub(at) < FRESH);
        let mut status = inner.status.clone();
        status.healthy &= fresh;
        status
    }

    /// Whether the member still turns.
    #[must_use]
    pub fn live(&self) -> bool {
        self.clock.now().saturating_sub(self.lock().turned) < STUCK
    }

    /// How the engine is asked, while it runs.
    #[must_use]
    pub fn situation(&self) -> Option<Situation> {
        self.lock().situation.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
