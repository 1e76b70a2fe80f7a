//! How long to wait before the next attempt to connect.

use std::time::{Duration, Instant};

/// The first wait is drawn from zero to this.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer, except when the controller asks for it.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lived this long counts as a success.
const SUCCESS: Duration = Duration::from_secs(60);
/// The longest wait that a controller can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Waits that grow from half a second to thirty, each drawn from zero to its
/// ceiling ("full jitter"), so that many agents that lost the same controller
/// do not come back at once.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
    connected: Option<Instant>,
}

impl Backoff {
    /// One that has not failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A session began at `now`.
    pub fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// An attempt or a connection failed at `now`: how long to wait. When the
    /// controller said how long, it is that and up to half as much again.
    pub fn failed(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        self.failed_with(now, retry_after, random_unit())
    }

    fn failed_with(&mut self, now: Instant, retry_after: Option<Duration>, unit: f64) -> Duration {
        if self.connected.take().is_some_and(|begin| now.saturating_duration_since(begin) >= SUCCESS) {
            self.failures = 0;
        }
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        match retry_after {
            Some(asked) => asked.min(LONGEST_ASKED).mul_f64(1.0 + unit / 2.0),
            None => ceiling.mul_f64(unit),
        }
    }
}

/// A number from 0 to 1. Without randomness it is 1, the longest wait.
fn random_unit() -> f64 {
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rule_8_waits_double_up_to_thirty_seconds() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        let waits: Vec<u128> = (0..8).map(|_| backoff.failed_with(now, None, 1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn rule_8_a_connection_of_a_minute_resets_and_a_shorter_one_does_not() {
        let begin = Instant::now();
        for (lived, next) in [(59, 4000), (60, 500)] {
            let mut backoff = Backoff::new();
            for _ in 0..3 {
                backoff.failed_with(begin, None, 1.0);
            }
            backoff.connected(begin);
            let wait = backoff.failed_with(begin + Duration::from_secs(lived), None, 1.0);
            assert_eq!(wait, Duration::from_millis(next), "after {lived} s");
        }
    }

    proptest! {
        #[test]
        fn rule_8_every_wait_is_within_its_bounds(failures in 0_usize..100, unit in 0.0..=1.0, asked in proptest::option::of(0_u64..100_000)) {
            let mut backoff = Backoff::new();
            let now = Instant::now();
            for _ in 0..failures {
                prop_assert!(backoff.failed_with(now, None, unit) <= LONGEST);
            }
            let asked = asked.map(Duration::from_secs);
            let wait = backoff.failed_with(now, asked, unit);
            match asked {
                Some(asked) => prop_assert!(wait >= asked.min(LONGEST_ASKED) && wait <= LONGEST_ASKED * 3 / 2),
                None => prop_assert!(wait <= LONGEST),
            }
        }
    }
}
