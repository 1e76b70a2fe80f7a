//! What changed, in order, for those who watch.
//!
//! A ring of the latest changes, each with a number above all before it, and a bell
//! that tells the newest number. A watcher asks for what came after the number it
//! has; when the ring no longer reaches back that far, it is told so instead of
//! being left with a hole. Numbers start from the clock, so that they grow over a
//! restart too.
//!
//! With several replicas each has a feed and numbers of its own. What another one changed
//! is a gap in this one's, so that its watchers fetch anew; and a watcher who comes from
//! another replica has a number that is a gap here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::data_services::DataServiceView;
use super::mirror::Noted;
use super::operations::OperationView;
use super::replicas::Replicas;
use super::views::{AgentView, ClusterView};
use crate::domain::{Attempt, ClusterId, OrgId, ReplicaNews, Time};

/// Changes kept for those who come back.
const KEPT: usize = 4096;

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub org: OrgId,
    /// The cluster it is about, if it is about one.
    pub cluster: Option<ClusterId>,
    /// How things are now.
    pub news: News,
}

/// How things are now.
#[derive(Debug, Clone)]
pub enum News {
    /// A cluster; with the state `deleted` when it is gone.
    Cluster(Box<ClusterView>),
    /// An agent.
    Agent(Box<AgentView>),
    /// An attempt to enrol.
    Attempt(Box<Attempt>),
    /// Objects of the cluster that changed or are gone, all that one report told: whatever an
    /// agent tells, it takes one place in the ring.
    Observed(Vec<Noted>),
    /// A data service.
    DataService(Box<DataServiceView>),
    /// An operation.
    Operation(Box<OperationView>),
}

/// What came after a number.
#[derive(Debug, Clone)]
pub enum Since {
    /// All of it, oldest first, and the number to ask with next.
    Changes(Vec<Arc<Change>>, u64),
    /// More than is kept; the number to go on with after fetching everything anew.
    Gap(u64),
}

/// The feed.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    bell: watch::Sender<u64>,
    replicas: Option<Arc<Replicas>>,
}

#[derive(Debug)]
struct Ring {
    newest: u64,
    changes: VecDeque<Arc<Change>>,
    /// Number of the last change that was dropped from the ring.
    dropped: u64,
    /// Below this number an organisation has missed something, by organisation.
    skipped: HashMap<OrgId, u64>,
}

impl Feed {
    pub(super) fn new(now: Time, replicas: Option<Arc<Replicas>>) -> Self {
        // Microseconds: below 2^53 for 280 years, and above what any process before
        // can have counted to.
        let first = u64::try_from(now.unix_timestamp_nanos() / 1000).unwrap_or(0);
        let ring = Ring { newest: first, changes: VecDeque::new(), dropped: first, skipped: HashMap::new() };
        Self { ring: Mutex::new(ring), bell: watch::Sender::new(first), replicas }
    }

    pub(super) fn publish(&self, org: OrgId, cluster: impl Into<Option<ClusterId>>, news: News) {
        let cluster = cluster.into();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.newest += 1;
        let id = ring.newest;
        ring.changes.push_back(Arc::new(Change { id, org, cluster, news }));
        if ring.changes.len() > KEPT
            && let Some(oldest) = ring.changes.pop_front()
        {
            ring.dropped = oldest.id;
        }
        // Inside the lock, so that the bell never tells an older number after a newer.
        self.bell.send_replace(id);
        drop(ring);
        if let Some(replicas) = &self.replicas {
            replicas.tell(ReplicaNews::Changes(org));
        }
    }

    /// Something of `org` changed that is not told here: its watchers fetch anew.
    pub(super) fn skip(&self, org: OrgId) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.newest += 1;
        let newest = ring.newest;
        ring.skipped.insert(org, newest);
        self.bell.send_replace(newest);
    }

    /// The newest number.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).newest
    }

    /// The changes of `org` above `id`.
    #[must_use]
    pub fn since(&self, org: OrgId, id: u64) -> Since {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = ring.skipped.get(&org).is_some_and(|skipped| id < *skipped);
        if skipped || id < ring.dropped || id > ring.newest {
            return Since::Gap(ring.newest);
        }
        let changes = ring.changes.iter().filter(|c| c.id > id && c.org == org).cloned().collect();
        Since::Changes(changes, ring.newest)
    }

    /// Rings with the newest number.
    #[must_use]
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Stage;

    fn attempt(cluster: ClusterId) -> News {
        let mut attempt = Attempt::begin(cluster, [127, 0, 0, 1].into(), Time::UNIX_EPOCH);
        attempt.advance(Stage::Tls, Time::UNIX_EPOCH);
        News::Attempt(Box::new(attempt))
    }

    fn ids(since: Since) -> Vec<u64> {
        match since {
            Since::Changes(changes, _) => changes.iter().map(|c| c.id).collect(),
            Since::Gap(_) => panic!("a gap"),
        }
    }

    #[test]
    fn each_organisation_sees_its_own() {
        let feed = Feed::new(Time::UNIX_EPOCH, None);
        let (ours, theirs, cluster) = (OrgId::generate(), OrgId::generate(), ClusterId::generate());
        for org in [ours, theirs, ours] {
            feed.publish(org, cluster, attempt(cluster));
        }
        assert_eq!(ids(feed.since(ours, 0)), [1, 3]);
        assert_eq!(ids(feed.since(ours, 1)), [3]);
        assert_eq!(ids(feed.since(theirs, 2)), [0; 0]);
        assert_eq!(*feed.bell().borrow(), 3);
    }

    #[test]
    fn whoever_was_away_too_long_is_told() {
        let feed = Feed::new(Time::UNIX_EPOCH, None);
        let (org, cluster) = (OrgId::generate(), ClusterId::generate());
        for _ in 0..=KEPT {
            feed.publish(org, cluster, attempt(cluster));
        }
        assert!(matches!(feed.since(org, 0), Since::Gap(newest) if newest == feed.newest()));
        assert_eq!(ids(feed.since(org, 1)).len(), KEPT);
        assert!(matches!(feed.since(org, u64::MAX), Since::Gap(_)));
    }

    #[test]
    fn what_changed_elsewhere_is_a_gap_for_its_organisation_alone() {
        let feed = Feed::new(Time::UNIX_EPOCH, None);
        let (ours, theirs, cluster) = (OrgId::generate(), OrgId::generate(), ClusterId::generate());
        feed.publish(ours, cluster, attempt(cluster));
        feed.skip(ours);
        let Since::Gap(next) = feed.since(ours, 1) else { panic!("no gap") };
        assert_eq!(*feed.bell().borrow(), next);
        assert_eq!(ids(feed.since(ours, next)), [0; 0]);
        assert_eq!(ids(feed.since(theirs, 0)), [0; 0]);
    }

    #[test]
    fn numbers_grow_over_a_restart() {
        let first = Feed::new(Time::UNIX_EPOCH + time::Duration::seconds(1), None);
        let (org, cluster) = (OrgId::generate(), ClusterId::generate());
        for _ in 0..1000 {
            first.publish(org, cluster, attempt(cluster));
        }
        let second = Feed::new(Time::UNIX_EPOCH + time::Duration::seconds(2), None);
        assert!(second.newest() > first.newest());
        // What the first process told last is a gap for the second, not a silence.
        assert!(matches!(second.since(org, first.newest()), Since::Gap(_)));
    }
}
