//! Gathers how things stand.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::plan::{self, Act};
use super::{DISTRUST, Member, why};
use crate::engine::{Data, Peer, Position, Role};
use crate::lease::claim::{self, PeerSeen, Refusal};
use crate::lease::record::Record;
use crate::lease::rule::Terms;
use crate::peers::Peers;
use crate::volume::{self, Pressure, Volume};
use crate::wish::Wish;

/// Time between questions to the other members, and to the engine about its standbys.
const ASK: Duration = Duration::from_secs(1);
/// Time for which a standby may receive nothing, while there is a primary, before it is compared with it again.
const ASTRAY: Duration = Duration::from_secs(20);
/// Bytes that a standby may lack when another is handed the Lease: the rest is sent while the engine stops.
const NEARLY: u64 = 16 * 1024 * 1024;

/// Asks the other members again and again. Ends when nobody listens.
pub(super) async fn ask(
    peers: Peers,
    wish: watch::Receiver<Arc<Wish>>,
    pod: String,
    others: watch::Sender<Vec<PeerSeen>>,
) {
    while !others.is_closed() {
        let config = wish.borrow().config.clone();
        others.send_replace(peers.ask(&config, &pod).await);
        tokio::time::sleep(ASK).await;
    }
}

impl Member {
    /// Sees whether the engine's process has ended.
    pub(super) fn see_process(&mut self) {
        let Some(process) = &mut self.process else { return };
        let ended = match process.ended() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.given.fence.writer(None);
        let told = self.told;
        self.process_ended();
        if told {
            tracing::info!(status = ended, "the engine has ended");
            return;
        }
        tracing::warn!(status = ended, "the engine ended by itself");
        self.failed();
        self.problem = Some(why::ended(&ended));
    }

    fn process_ended(&mut self) {
        self.process = None;
        self.role = None;
        self.told = false;
        self.data = None;
        self.joined = None;
        self.settled = None;
        self.configured = None;
        self.standbys.clear();
        self.since = self.now();
        self.subject.send_replace(None);
    }

    /// Sees what has become of what was wanted of the Lease.
    pub(super) fn see_lease(&mut self) {
        let standing = self.given.standing.borrow();
        if !standing.leading {
            (self.release, self.handing_over) = (false, self.handing_over && self.process.is_some());
            self.list = None;
        }
        let record = standing.record.as_ref();
        if record.is_some_and(|record| self.list.as_ref() == Some(&record.synchronous)) {
            self.list = None;
        }
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.pause(self.failures);
    }

    /// Waits longer with each failure in a row, up to half a minute.
    pub(super) fn pause(&mut self, failures: u32) {
        let seconds = 1_u64 << failures.min(5);
        self.pause_until = self.now() + Duration::from_secs(seconds.min(30));
    }

    pub(super) fn see_volume(&mut self) {
        let asked = self.given.wish.borrow().config.volume_bytes;
        let volume = match Volume::measure(&self.given.folders.volume, asked) {
            Ok(volume) => volume,
            Err(error) => {
                tracing::debug!(%error, "the volume cannot be measured");
                return;
            }
        };
        self.volume = Some(volume);
        self.read_only = match volume.pressure() {
            Pressure::High => true,
            Pressure::Between => self.read_only,
            Pressure::None => false,
        };
        if let Err(error) = volume::keep_reserve(&self.given.folders.volume, volume) {
            tracing::debug!(%error, "the reserve cannot be made");
        }
    }

    pub(super) async fn see_data(&mut self) {
        if self.data.is_some() || self.process.is_some() || self.task.is_some() {
            return;
        }
        match self.given.engine.inspect(&self.situation()).await {
            Ok(data) => self.data = Some(data),
            Err(error) => self.problem = Some(why::engine("looking at the volume", &error)),
        }
    }

    /// On a primary: what the standbys have.
    pub(super) async fn see_standbys(&mut self) {
        let primary = self.role == Some(Role::Primary) && self.leading() && self.answers();
        if !primary || self.now() < self.looked + ASK {
            return;
        }
        self.looked = self.now();
        let limit = Duration::from_secs(2);
        match tokio::time::timeout(limit, self.given.engine.standbys(&self.situation())).await {
            Ok(Ok(standbys)) => self.standbys = standbys,
            Ok(Err(error)) => tracing::debug!(%error, "the standbys cannot be seen"),
            Err(_) => tracing::debug!("the engine takes too long to tell its standbys"),
        }
    }

    pub(super) fn decide_claim(&mut self) {
        let standing = self.given.standing.borrow().clone();
        let config = self.given.wish.borrow().config.clone();
        let standby = self.found.borrow().well.as_ref().map(|(probed, _)| probed.position);
        let follows = matches!(self.role, Some(Role::Replica(_)));
        let empty = Data::Empty;
        let others = self.others.borrow().clone();
        let facts = claim::Facts {
            pod: &self.given.pod,
            ordinal: ordinal(&self.given.pod),
            replicas: u32::try_from(config.replicas).unwrap_or(0),
            synchronous: config.synchronous,
            data: self.data.as_ref().unwrap_or(&empty),
            standby: standby.filter(|_| follows),
            record: standing.record.as_ref(),
            unchanged: self.now().saturating_sub(standing.since),
            lease: Terms::new(config.lease_seconds).lease,
            peers: &others,
        };
        // Until the volume was looked at, nothing is known.
        self.claim = if self.data.is_some() { claim::claim(&facts) } else { Err(Refusal::NotRunning) };
    }

    /// Whether the engine answered lately.
    pub(super) fn answers(&self) -> bool {
        let found = self.found.borrow();
        let fresh =
            |at: Duration| at >= self.since && self.now().saturating_sub(at) < Duration::from_secs(10);
        found.well.as_ref().is_some_and(|(_, at)| fresh(*at))
    }

    /// How far the log has come, as the last probe saw it.
    pub(super) fn position(&self) -> Option<Position> {
        self.found.borrow().well.as_ref().map(|(probed, _)| probed.position)
    }

    /// The next thing to do.
    pub(super) fn plan(&mut self) -> Act {
        let primary = self.primary();
        self.see_stream(primary.as_ref());
        let standing = self.given.standing.borrow().clone();
        let record = standing.record.unwrap_or_default();
        let stopping = self.given.stop.is_cancelled();
        let (Some(data), true) = (self.data.as_ref(), standing.known || stopping) else {
            return if stopping && self.process.is_none() && self.task.is_none() {
                Act::Exit
            } else {
                Act::Nothing
            };
        };
        let facts = plan::Facts {
            stopping,
            leading: self.leading(),
            initialised: record.initialised.is_some(),
            recorded: matches!(data, Data::Whole { identity, .. } if record.initialised.as_ref() == Some(identity)),
            data,
            running: self.role.as_ref(),
            answers: self.answers(),
            primary: primary.as_ref(),
            settled: self.settled.as_ref() == Some(&self.settling()),
            hand_over: self.hand_over(&record),
            give_up: self.gives_up(),
            joined: self.joined.as_ref(),
            astray: self.now().saturating_sub(self.streamed) > ASTRAY,
        };
        plan::next(&facts)
    }

    /// The member that holds the Lease, when it is another and its hold has not run out.
    pub(super) fn primary(&self) -> Option<Peer> {
        let standing = self.given.standing.borrow();
        let record = standing.record.as_ref()?;
        let holder = record.holder.as_deref().filter(|holder| *holder != self.given.pod)?;
        record.initialised.as_ref()?;
        let config = self.given.wish.borrow().config.clone();
        let fresh = self.now().saturating_sub(standing.since) < record.duration || !record.fenced;
        fresh.then(|| self.given.peers.of(&config, holder))
    }

    fn see_stream(&mut self, primary: Option<&Peer>) {
        let receives = self.found.borrow().well.as_ref().is_some_and(|(probed, _)| probed.streaming);
        let follows = matches!(&self.role, Some(Role::Replica(Some(upstream))) if Some(upstream) == primary);
        if receives || !follows || !self.answers() {
            self.streamed = self.now();
        }
    }

    /// Whether another shall become primary, is connected, and has nearly all.
    fn hand_over(&self, record: &Record) -> bool {
        let Some(to) = record.switchover_to.as_deref().filter(|to| *to != self.given.pod) else {
            return false;
        };
        if self.handing_over {
            return true;
        }
        let listed = record.synchronous.as_ref().is_none_or(|list| list.iter().any(|name| name == to));
        let enough = |standby: &crate::engine::Standby| {
            let mine = self.position().unwrap_or_default().offset;
            standby.streaming && standby.flushed.offset.saturating_add(NEARLY) >= mine
        };
        listed && self.standbys.iter().any(|standby| standby.pod == to && enough(standby))
    }

    /// Whether the engine ended here again and again, and there are others.
    fn gives_up(&self) -> bool {
        self.failures >= DISTRUST && self.given.wish.borrow().config.replicas > 1
    }

    /// What users, passwords and slots depend on.
    pub(super) fn settling(&self) -> String {
        let wish = self.given.wish.borrow();
        format!("{} {} {}", wish.credentials.digest, wish.config.replicas, wish.config.owner)
    }
}

/// The number at the end of a pod's name.
fn ordinal(pod: &str) -> u32 {
    pod.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(u32::MAX)
}
