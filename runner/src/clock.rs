//! The clock of this process: time since it began. It does not run backwards, whatever happens to the wall clock.
use std::time::{Duration, Instant};

/// A clock; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// The instant of a time.
    #[must_use]
    pub fn instant(self, at: Duration) -> Instant {
        self.0 + at
    }
}
