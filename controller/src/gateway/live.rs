//! Calls that are under way, and the end of those whose right has ended.
//!
//! A right is checked when a request comes in; a watch or an `exec` outlives that check. So
//! each forwarded call is written down here with what its right hangs on, and one task ends
//! what must end: at once on news of a revocation, within [`SWEEP`] of an expiry.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access::is_no;
use crate::app::App;
use crate::domain::{Caller, ClusterId, ClusterRef, Time};

/// How often expiries are looked for; the contract allows five seconds.
const SWEEP: Duration = Duration::from_secs(1);

/// What a call's right hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) cluster: ClusterId,
    pub(crate) caller: Caller,
    /// A watch: its client begins it anew wherever it is told to.
    pub(crate) restarts: bool,
}

/// Why a call was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Expired,
    Revoked,
    /// The controller stops, and the stream would go on for ever.
    Stopping,
}

impl Cut {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Cut::Expired => "credential_expired",
            Cut::Revoked => "access_revoked",
            Cut::Stopping => "controller_stopping",
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
    right: Arc<Right>,
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
        calls.open.insert(number, Entry { right: Arc::new(right), cut: Arc::clone(&cut), end: end.clone() });
        Lease { number, live: self.clone(), cut, end }
    }

    /// Ends every call whose right `has_ended`; says how many.
    fn end_where(&self, has_ended: impl Fn(&Right) -> Option<Cut>) -> usize {
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

    fn end_expired(&self, now: Time) -> usize {
        let has_expired = |right: &Right| right.caller.credential().expires_at.is_some_and(|end| end <= now);
        self.end_where(|right| has_expired(right).then_some(Cut::Expired))
    }

    fn rights(&self) -> Vec<Arc<Right>> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .values()
            .map(|e| e.right.clone())
            .collect()
    }

    /// Asks anew about every right there is; whether all could be decided.
    async fn recheck(&self, app: &App) -> bool {
        let mut asked = HashSet::new();
        let mut decided = true;
        for right in self.rights() {
            let credential = right.caller.credential();
            if !asked.insert((right.cluster, credential.kind, credential.id.clone())) {
                continue;
            }
            match still(app, &right).await {
                Ok(true) => {}
                Ok(false) => {
                    let same = |other: &Right| {
                        other.cluster == right.cluster && other.caller.credential() == credential
                    };
                    let ended = self.end_where(|other| same(other).then_some(Cut::Revoked));
                    tracing::info!(calls = ended, cluster = %right.cluster, actor = %right.caller.actor().name(), "ended calls whose right has ended");
                }
                Err(()) => decided = false,
            }
        }
        decided
    }

    /// Ends calls as their rights end, until the process stops. A check that could not be made,
    /// or that came so early that it may have read an old answer, is made again.
    pub(crate) async fn guard(
        self,
        app: App,
        stop: CancellationToken,
    ) -> Result<(), watch::error::RecvError> {
        let mut revocations = app.revocations();
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.end_where(|right| right.restarts.then_some(Cut::Stopping));
                    return Ok(());
                }
                changed = revocations.changed() => {
                    changed?;
                    again = true;
                    self.recheck(&app).await;
                }
                _ = ticks.tick() => {
                    self.end_expired(app.now());
                    if again {
                        again = !self.recheck(&app).await;
                    }
                }
            }
        }
    }
}

/// Whether a right still holds; an error when nobody can tell now.
pub(crate) async fn still(app: &App, right: &Right) -> Result<bool, ()> {
    let checked = match app.recheck(&right.caller).await {
        Ok(()) => app.authorise_gateway(&right.caller, &ClusterRef::Id(right.cluster)).await.map(|_| ()),
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Ok(true),
        Err(error) if is_no(&error) => Ok(false),
        Err(error) => {
            tracing::warn!(%error, "whether a call may go on cannot be decided at the moment");
            Err(())
        }
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
    use crate::domain::{ApiTokenId, Credential, CredentialKind, OrgId, Role};

    fn right(expires_in: Option<u64>, restarts: bool) -> Right {
        let id = ApiTokenId::generate();
        let name: crate::domain::Name = "ci".parse().unwrap();
        let credential = Credential {
            kind: CredentialKind::ApiToken,
            id: id.to_string(),
            name: None,
            expires_at: expires_in.map(|seconds| Time::UNIX_EPOCH + Duration::from_secs(seconds)),
            network: None,
        };
        let caller = Caller::api_token(OrgId::generate(), name.clone(), id, name, Role::Reader, credential);
        Right { cluster: ClusterId::generate(), caller, restarts }
    }

    #[tokio::test]
    async fn only_calls_whose_right_ended_are_ended() {
        let live = LiveCalls::default();
        let begin = |expires_in, restarts| live.begin(right(expires_in, restarts));
        let (short, long, forever) = (begin(Some(5), false), begin(Some(9), false), begin(None, true));
        assert_eq!(live.end_expired(Time::UNIX_EPOCH + Duration::from_secs(5)), 1);
        short.ended().await;
        assert_eq!((short.cut(), long.cut(), forever.cut()), (Some(Cut::Expired), None, None));
        assert_eq!(live.end_where(|right| right.restarts.then_some(Cut::Stopping)), 1);
        forever.ended().await;
        assert_eq!(forever.cut(), Some(Cut::Stopping));
        assert_eq!(live.end_expired(Time::UNIX_EPOCH + Duration::from_secs(6)), 0, "nothing is ended twice");
    }

    #[test]
    fn a_call_that_is_over_is_forgotten() {
        let live = LiveCalls::default();
        let lease = live.begin(right(None, false));
        assert_eq!(live.rights().len(), 1);
        drop(lease);
        assert!(live.rights().is_empty());
    }
}
