//! Calls that are under way, and the end of those whose right has ended.
//!
//! A right is checked when a request comes in; a watch or an `exec` outlives that check. So
//! each forwarded call is written down here with what its right hangs on, and one task ends
//! what must end: at once on news of a revocation, within [`SWEEP`] of an expiry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::domain::{ClusterId, Time};

/// How often expiries are looked for; the contract allows five seconds.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// What a call's right hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) cluster: ClusterId,
    /// Id of the session or token, or serial number of the certificate.
    pub(crate) credential: String,
    /// Id of the person or token that acts.
    pub(crate) actor: String,
    pub(crate) expires_at: Option<Time>,
}

/// Why a call was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Expired,
    Revoked,
}

impl Cut {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cut::Expired => "credential_expired",
            Cut::Revoked => "access_revoked",
        }
    }
}

/// All calls under way; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveCalls {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    open: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    right: Right,
    cut: Arc<OnceLock<Cut>>,
    end: CancellationToken,
}

/// One call under way; dropped, it is no longer listed.
#[derive(Debug)]
pub(crate) struct Lease {
    number: u64,
    live: LiveCalls,
    cut: Arc<OnceLock<Cut>>,
    end: CancellationToken,
}

impl LiveCalls {
    pub(crate) fn begin(&self, right: Right) -> Lease {
        let (cut, end) = (Arc::default(), CancellationToken::new());
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.last += 1;
        let number = calls.last;
        calls.open.insert(number, Entry { right, cut: Arc::clone(&cut), end: end.clone() });
        Lease { number, live: self.clone(), cut, end }
    }

    /// Ends every call whose right `has_ended`; says how many.
    pub(crate) fn end_where(&self, has_ended: impl Fn(&Right) -> Option<Cut>) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        for entry in calls.open.values() {
            if let Some(cut) = has_ended(&entry.right)
                && entry.cut.set(cut).is_ok()
            {
                entry.end.cancel();
                ended += 1;
            }
        }
        ended
    }

    pub(crate) fn end_expired(&self, now: Time) -> usize {
        self.end_where(|right| right.expires_at.is_some_and(|end| end <= now).then_some(Cut::Expired))
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).open.len()
    }

    /// The rights of all calls under way, to be asked about anew.
    pub(crate) fn rights(&self) -> Vec<Right> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).open.values().map(|e| e.right.clone()).collect()
    }
}

impl Lease {
    /// Ends when the call must end.
    pub(crate) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.end.clone().cancelled_owned()
    }

    /// Why it was ended, if it was.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.live.calls.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(credential: &str, expires_in: Option<u64>) -> Right {
        Right {
            cluster: ClusterId::generate(),
            credential: credential.into(),
            actor: "usr".into(),
            expires_at: expires_in.map(|seconds| Time::UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    #[tokio::test]
    async fn only_calls_whose_right_ended_are_ended() {
        let live = LiveCalls::default();
        let (short, long, forever) = (live.begin(right("a", Some(5))), live.begin(right("b", Some(9))), live.begin(right("c", None)));
        assert_eq!(live.end_expired(Time::UNIX_EPOCH + Duration::from_secs(5)), 1);
        short.ended().await;
        assert_eq!((short.cut(), long.cut(), forever.cut()), (Some(Cut::Expired), None, None));
        assert_eq!(live.end_where(|right| (right.credential == "c").then_some(Cut::Revoked)), 1);
        forever.ended().await;
        assert_eq!(forever.cut(), Some(Cut::Revoked));
        assert_eq!(live.end_expired(Time::UNIX_EPOCH + Duration::from_secs(6)), 0, "nothing is ended twice");
    }

    #[test]
    fn a_call_that_is_over_is_forgotten() {
        let live = LiveCalls::default();
        let lease = live.begin(right("a", None));
        assert_eq!(live.len(), 1);
        drop(lease);
        assert_eq!(live.len(), 0);
    }
}
