//! The mirror: objects of customers' clusters, as their agents tell them.
//!
//! An agent tells what changed, and now and then everything there is. Each report is
//! compared with what is kept, and only what differs is written, so an agent that
//! tells the same again costs one query and no write. What was not told in a full
//! telling is gone.
//!
//! An agent is believed about its own cluster and nothing else: the cluster is that
//! of its certificate, and how many objects it may fill, of what size and how often
//! it may tell, is bounded here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use culvert_tunnel::AgentKey;
use tokio::sync::{Mutex as Turn, watch};

use super::feed::News;
use super::{App, Error};
use crate::domain::observed::{
    Mirror, OBJECTS_BYTES_MAX, OBJECTS_MAX, ObjectKey, Observation, ObservedObject, REPORT_MAX, Untakable,
    object_id,
};
use crate::domain::{AgentId, Caller, ClusterId, OrgId, Time};
use crate::store::{ObservedFilter, OrgTx, Seen, Written};

/// Reports an agent may send at once, and how many more in each second after that.
const BURST: f64 = 100.0;
const PER_SECOND: f64 = 5.0;
/// Refused objects that are named in an answer.
const REFUSED_NAMED: usize = 10;
/// Agents remembered at once; beyond that those that tell nothing are forgotten.
const TELLERS_MAX: usize = 10_000;
/// A full telling that changes nothing is noted this often.
const NOTE_EVERY: time::Duration = time::Duration::minutes(5);

/// What an agent tells.
#[derive(Debug, Default)]
pub struct Report {
    /// Part of a full telling.
    pub resync: Option<Resync>,
    /// Objects that are there.
    pub objects: Vec<Observation>,
    /// Objects that are gone.
    pub deleted: Vec<ObjectKey>,
    /// Objects that were not even readable.
    pub refused: Vec<(String, Untakable)>,
}

/// Where in a full telling a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resync {
    /// Which full telling of the agent's.
    pub id: u64,
    /// It begins here.
    pub first: bool,
    /// It ends here.
    pub last: bool,
    /// Nothing may be concluded from what is missing.
    pub partial: bool,
}

/// What came of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// A full telling is wanted.
    pub resync: bool,
    /// How long to wait before the next report.
    pub wait: Duration,
    /// What was not taken, and why.
    pub refused: Vec<(String, Untakable)>,
}

/// Why nothing of a report was taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// The agent may not speak for a cluster.
    #[error("this agent speaks for no cluster now")]
    Nobody,
    /// Another report of the same agent is under way.
    #[error("another report of this agent is under way")]
    Busy,
    /// More in one report than is taken.
    #[error("a report holds at most {REPORT_MAX} objects")]
    TooMuch,
    /// More instances in one telling of samples than are taken.
    #[error("samples of at most {0} instances are taken at once")]
    TooMany(usize),
    /// Samples come more often than they are taken.
    #[error("samples come too often")]
    TooOften,
    /// We failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What changed in the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Which object.
    pub key: ObjectKey,
    /// Id of the control plane's record, as its label says.
    pub record: Option<String>,
    /// It is gone.
    pub gone: bool,
}

/// The agents that tell.
#[derive(Debug)]
pub(super) struct Tellers {
    known: Mutex<HashMap<AgentKey, Arc<Turn<Teller>>>>,
    bell: watch::Sender<u64>,
}

impl Default for Tellers {
    fn default() -> Self {
        Self { known: Mutex::default(), bell: watch::Sender::new(0) }
    }
}

impl Tellers {
    fn of(&self, agent: AgentKey, now: Time) -> Arc<Turn<Teller>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TELLERS_MAX && !known.contains_key(&agent) {
            known.retain(|_, teller| Arc::strong_count(teller) > 1);
        }
        Arc::clone(known.entry(agent).or_insert_with(|| Arc::new(Turn::new(Teller::new(now)))))
    }
}

/// One agent that tells, as far as it concerns the order and rate of its reports.
#[derive(Debug)]
struct Teller {
    pace: Pace,
    /// A full telling came to its end since this process began.
    synced: bool,
    /// The full telling under way, and what it has named.
    under_way: Option<(u64, HashSet<ObjectKey>)>,
}

impl Teller {
    fn new(now: Time) -> Self {
        Self { pace: Pace { left: BURST, at: now }, synced: false, under_way: None }
    }

    /// Takes a report's place in a full telling; `false` when it has none, and a new telling must begin.
    fn follow(&mut self, resync: Option<Resync>) -> bool {
        match (resync, &self.under_way) {
            (None, _) => {
                // The agent began to tell changes: an unfinished full telling is void.
                self.under_way = None;
                true
            }
            (Some(Resync { id, first: true, .. }), _) => {
                self.under_way = Some((id, HashSet::new()));
                true
            }
            (Some(Resync { id, .. }), Some((begun, _))) => *begun == id,
            (Some(_), None) => false,
        }
    }
}

/// A bucket of reports that fills up again with time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    left: f64,
    at: Time,
}

impl Pace {
    /// Takes one, and says how long to wait before the next. What comes in spite of it waits its turn.
    fn take(&mut self, now: Time) -> Duration {
        let passed = (now - self.at).as_seconds_f64().max(0.0);
        self.left = (self.left + passed * PER_SECOND).min(BURST) - 1.0;
        self.at = now;
        if self.left >= 1.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((1.0 - self.left) / PER_SECOND)
        }
    }
}

impl App {
    /// Takes what an agent tells of its cluster.
    ///
    /// # Errors
    /// [`Untaken`]; then nothing of it was written.
    pub async fn observe(&self, agent: AgentKey, report: Report) -> Result<Taken, Untaken> {
        if report.objects.len() + report.deleted.len() > REPORT_MAX {
            return Err(Untaken::TooMuch);
        }
        let teller = self.inner.tellers.of(agent, self.now());
        // One report at a time: what two connections of one agent tell must not cross.
        let mut teller = teller.try_lock().map_err(|_| Untaken::Busy)?;
        let wait = teller.pace.take(self.now());
        if wait > Duration::from_secs(30) {
            return Err(Untaken::Busy);
        }
        let (org, id) = (OrgId::from(agent.org), AgentId::from(agent.agent));
        let record = self.live_record(org, id).await.map_err(|_| Untaken::Nobody)?;
        if !teller.follow(report.resync) {
            return Ok(Taken { resync: true, wait, refused: Vec::new() });
        }
        let caller = Caller::agent(org, id);
        let mut refused = report.refused;
        let told = Told { resync: report.resync, objects: report.objects, deleted: report.deleted };
        let noted = self.write_down(&caller, record.cluster, told, &mut teller, &mut refused).await?;
        self.tell(org, record.cluster, noted);
        refused.truncate(REFUSED_NAMED);
        let resync = !teller.synced && report.resync.is_none();
        Ok(Taken { resync, wait, refused })
    }

    async fn write_down(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        told: Told,
        teller: &mut Teller,
        refused: &mut Vec<(String, Untakable)>,
    ) -> Result<Vec<Noted>, Error> {
        let kept = self.store().org(caller).observed_keys(cluster).await?;
        if let Some((_, named)) = &mut teller.under_way {
            named.extend(told.objects.iter().map(|object| object.key.clone()));
        }
        let ends = told.resync.filter(|resync| resync.last);
        let mut gone: Vec<ObjectKey> = told.deleted;
        gone.retain(|key| kept.contains_key(key));
        if let (Some(end), Some((_, named))) = (ends, &teller.under_way)
            && !end.partial
        {
            gone.extend(kept.keys().filter(|key| !named.contains(key)).cloned());
        }
        let changed = changed(told.objects, &kept, &gone, refused)?;
        let mirror = ends.map(|end| Mirror { synced_at: self.now(), partial: end.partial });
        let noted = self.commit_mirror(caller, cluster, &changed, &gone, mirror).await?;
        if ends.is_some() {
            teller.under_way = None;
            teller.synced = true;
        }
        Ok(noted)
    }

    async fn commit_mirror(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        changed: &[Written],
        gone: &[ObjectKey],
        mirror: Option<Mirror>,
    ) -> Result<Vec<Noted>, Error> {
        let now = self.now();
        let worth_noting = match mirror {
            None => false,
            Some(mirror) => {
                let last = self.store().org(caller).mirror(cluster).await?;
                last.is_none_or(|last| {
                    last.partial != mirror.partial || mirror.synced_at - last.synced_at >= NOTE_EVERY
                })
            }
        };
        if changed.is_empty() && gone.is_empty() && !worth_noting {
            return Ok(Vec::new());
        }
        let tx = self.store().write(caller).await?;
        let mut noted = Vec::with_capacity(changed.len() + gone.len());
        for written in changed {
            tx.put_observed(cluster, written, now).await?;
            let told = written.told();
            noted.push(Noted { key: told.key.clone(), record: told.record.clone(), gone: false });
        }
        for key in gone {
            tx.forget_observed(cluster, key).await?;
            noted.push(Noted { key: key.clone(), record: None, gone: true });
        }
        if let Some(mirror) = mirror {
            tx.note_mirror(cluster, mirror).await?;
        }
        let told = changed.iter().map(Written::told);
        let services = self.data_services_told(&tx, cluster, told.clone(), gone).await?;
        let works = self.works_told(&tx, cluster, told).await?;
        tx.commit().await?;
        self.publish_data_services(caller, &services).await;
        if works {
            self.wake();
        }
        Ok(noted)
    }

    /// Keeps what a cluster's API server answered of an object as if the agent had told it, so that
    /// whoever asks next sees what was done. What the agent tells later replaces it.
    pub(super) async fn keep_answer(
        &self,
        tx: &OrgTx,
        cluster: ClusterId,
        told: Observation,
    ) -> Result<ObservedObject, Error> {
        let (id, now) = (object_id(cluster, told.uid), self.now());
        tx.put_observed(cluster, &Written::of(told.clone())?, now).await?;
        Ok(ObservedObject { id, cluster, told, observed_at: now })
    }

    /// Tells those who watch of an object that the control plane itself changed.
    pub(super) fn tell_answer(&self, org: OrgId, object: &ObservedObject, gone: bool) {
        let told = &object.told;
        let noted = Noted { key: told.key.clone(), record: told.record.clone(), gone };
        self.tell(org, object.cluster, vec![noted]);
    }

    /// Tells those who watch, after the commit.
    fn tell(&self, org: OrgId, cluster: ClusterId, noted: Vec<Noted>) {
        if noted.is_empty() {
            return;
        }
        self.feed().publish(org, cluster, News::Observed(noted));
        self.inner.tellers.bell.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Rings whenever the mirror of any cluster has changed.
    #[must_use]
    pub fn observations(&self) -> watch::Receiver<u64> {
        self.inner.tellers.bell.subscribe()
    }

    /// Observed objects of the caller's clusters, those made last first.
    pub async fn observed(
        &self,
        caller: &Caller,
        filter: &ObservedFilter,
        limit: u64,
    ) -> Result<Vec<ObservedObject>, Error> {
        Ok(self.store().org(caller).observed(filter, limit).await?)
    }

    /// One observed object.
    pub async fn observed_one(
        &self,
        caller: &Caller,
        cluster: ClusterId,
        key: &ObjectKey,
    ) -> Result<Option<ObservedObject>, Error> {
        Ok(self.store().org(caller).observed_one(cluster, key).await?)
    }

    /// When all objects of a cluster were last told; `None` when its agent never told any.
    pub async fn mirror(&self, caller: &Caller, cluster: ClusterId) -> Result<Option<Mirror>, Error> {
        Ok(self.store().org(caller).mirror(cluster).await?)
    }

    /// Whether nothing new can be known of a cluster now: its agent is not here.
    pub async fn is_stale(&self, caller: &Caller, cluster: ClusterId) -> Result<bool, Error> {
        let agent = self.store().org(caller).agent_of(cluster).await?;
        Ok(agent.is_none_or(|agent| self.live().session(caller.org(), agent.id).is_none()))
    }
}

/// What is left of a report when its readable parts are known.
struct Told {
    resync: Option<Resync>,
    objects: Vec<Observation>,
    deleted: Vec<ObjectKey>,
}

/// Those of the told objects that differ from what is kept and still have room.
fn changed(
    told: Vec<Observation>,
    kept: &HashMap<ObjectKey, Seen>,
    gone: &[ObjectKey],
    refused: &mut Vec<(String, Untakable)>,
) -> Result<Vec<Written>, Error> {
    let mut count = (kept.len() - gone.len()) as u64;
    let mut bytes: u64 = kept.iter().filter(|(key, _)| !gone.contains(key)).map(|(_, seen)| seen.bytes).sum();
    let mut changed: Vec<Written> = Vec::new();
    for observation in told {
        let key = observation.key.clone();
        let written = Written::of(observation)?;
        let before = kept.get(&key);
        if before.is_some_and(|seen| seen.is(&written)) {
            continue;
        }
        let (more, less) = (u64::from(before.is_none()), before.map_or(0, |seen| seen.bytes));
        if count + more > OBJECTS_MAX || bytes + written.bytes() > OBJECTS_BYTES_MAX + less {
            refused.push((key.to_string(), Untakable::Full));
            continue;
        }
        count += more;
        bytes = bytes + written.bytes() - less;
        changed.push(written);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ObjectKind;

    fn observation(name: &str, size: usize) -> Observation {
        Observation {
            key: ObjectKey { kind: ObjectKind::Backup, namespace: "data".to_owned(), name: name.to_owned() },
            uid: Uuid::from_u128(1),
            record: None,
            generation: 1,
            made_at: Time::UNIX_EPOCH,
            object: json!({"pad": "x".repeat(size)}),
            cut: false,
        }
    }

    fn part(id: u64, first: bool) -> Option<Resync> {
        Some(Resync { id, first, last: false, partial: false })
    }

    #[test]
    fn a_full_telling_must_begin_at_its_beginning() {
        let mut teller = Teller::new(Time::UNIX_EPOCH);
        assert!(!teller.follow(part(1, false)));
        assert!(teller.follow(part(1, true)));
        assert!(teller.follow(part(1, false)));
        assert!(!teller.follow(part(2, false)), "another telling's part");
        assert!(teller.follow(None));
        assert!(!teller.follow(part(1, false)), "changes in between make it void");
    }

    #[test]
    fn an_agent_that_tells_too_often_is_told_to_wait() {
        let mut pace = Pace { left: BURST, at: Time::UNIX_EPOCH };
        let burst = (0..100).filter(|_| pace.take(Time::UNIX_EPOCH).is_zero()).count();
        assert_eq!(burst, 99);
        assert!(pace.take(Time::UNIX_EPOCH) > Duration::from_millis(200));
        assert!(pace.take(Time::UNIX_EPOCH + time::Duration::hours(1)).is_zero());
        // A clock that goes back gives nothing and takes nothing.
        let left = pace.left;
        pace.take(Time::UNIX_EPOCH);
        assert!((pace.left - (left - 1.0)).abs() < 1e-9);
    }

    #[test]
    fn a_cluster_is_full_at_its_bounds() {
        let mut refused = Vec::new();
        let many = (0..=OBJECTS_MAX).map(|n| observation(&format!("b{n}"), 1)).collect();
        let taken = changed(many, &HashMap::new(), &[], &mut refused).unwrap();
        assert_eq!((taken.len() as u64, refused.len()), (OBJECTS_MAX, 1));
        assert_eq!(refused[0].1, Untakable::Full);
    }
}
