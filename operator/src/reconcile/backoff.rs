//! How long an object that fails waits for its next try.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row of each object, by uid.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Mutex<HashMap<String, Failing>>);

#[derive(Debug, Clone, Copy)]
struct Failing {
    times: u32,
    until: Instant,
}

impl Backoff {
    /// Notes a failure, and says how long to wait.
    pub(crate) fn failed(&self, uid: &str, now: Instant) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = all.get(uid).map_or(1, |failing| failing.times.saturating_add(1));
        let wait = pause(times, uid);
        all.insert(uid.to_owned(), Failing { times, until: now + wait });
        wait
    }

    /// Notes a success. Nothing is kept of objects that do not fail.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// How long the object still has to wait, for events that arrive meanwhile.
    pub(crate) fn left(&self, uid: &str, now: Instant) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = all.get(uid)?;
        // The first two failures do not keep an event waiting: a conflict is not a storm.
        (failing.times > 2 && failing.until > now).then(|| failing.until - now)
    }

    /// Forgets objects that are not tried any more: they were deleted while they failed.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, failing| failing.until + LONGEST > now);
        all.len()
    }
}

/// Doubles from one second to five minutes. A number of the object's own moves it by up to a quarter, so that
/// what failed together is not tried again together.
fn pause(times: u32, uid: &str) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32 << times.saturating_sub(1).min(9));
    let number: u32 = uid.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    doubled.min(LONGEST).mul_f64(1.0 + f64::from(number % 250) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<u64> = (1..=12).map(|times| pause(times, "").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(pause(400, "x") <= LONGEST.mul_f64(1.25));
    }

    #[test]
    fn events_do_not_hurry_what_keeps_failing() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed("a", now);
        assert_eq!(backoff.left("a", now), None, "the first failure may be a conflict");
        backoff.failed("a", now);
        let third = backoff.failed("a", now);
        assert_eq!(backoff.left("a", now), Some(third));
        assert_eq!(backoff.left("a", now + third), None);
        assert_eq!(backoff.left("b", now), None, "another object is not concerned");
        backoff.succeeded("a");
        assert_eq!(backoff.left("a", now), None);
        assert_eq!(backoff.failed("a", now).as_secs(), 1, "after a success it begins anew");
    }

    #[test]
    fn deleted_objects_are_forgotten() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let wait = backoff.failed("a", now);
        assert_eq!(backoff.sweep(now), 1);
        assert_eq!(backoff.sweep(now + wait + LONGEST), 0);
    }
}
