//! What time it is: the one place where the app reads a clock.

use std::fmt;
use std::sync::Arc;

use crate::domain::{Time, to_millisecond};

/// Tells the time; in tests, whatever time they choose.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Time + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Time::now_utc))
    }

    /// A clock of one's own.
    pub fn new(tell: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Now, to the millisecond.
    #[must_use]
    pub fn now(&self) -> Time {
        to_millisecond((self.0)())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
