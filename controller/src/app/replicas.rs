//! This controller as one of several on the same database.
//!
//! Each replica has a row in which it counts its beats, a row for each session that it
//! holds, and a numbered list of what it tells the others. Once a second it writes its
//! beat, which is the lease of all its sessions at once, says what it has to say, and
//! reads the others. So a heartbeat of an agent costs no write here either.
//!
//! What is told is only *that* something happened; whoever hears it reads how things are.
//! News that are lost with the process that had them are made up for: when a replica is
//! gone, every right is asked about again.
//!
//! While the database is away everybody is believed to be where they were last.
//!
//! Mistakes a newcomer could make:
//! - telling before the commit: the others would read the old state, and not again;
//! - to look at the others whenever there is news: ten looks in a burst of it would see no
//!   new beat, and everybody would seem gone;
//! - to conclude from a failed look that a replica is gone.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use culvert_pki::key::KeyPair;
use culvert_pki::name::Identity;
use culvert_pki::tls::{ClientIdentity, trusted_client};
use culvert_tunnel::{AgentKey, Moved, Owner, SessionInfo};
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::live::{LiveSession, key};
use super::{App, Error};
use crate::config::HostPort;
use crate::domain::replica::{Look, Others};
use crate::domain::{AgentId, AgentSession, OrgId, Replica, ReplicaNews, Time, to_millisecond};
use crate::store::Store;

/// How often a replica looks at the others.
const EVERY: Duration = Duration::from_secs(1);
/// Numbers of news that are left out after some could perhaps not be written.
const SKIPPED: u64 = 1000;
/// Looks after which all sessions are read anew, whatever was told.
const ALL_ANEW: u64 = 30;
/// Life of the certificate with which one replica dials another; the connection may live on.
const CERTIFICATE: time::Duration = time::Duration::hours(1);

/// What this replica is, knows of the others, and has to tell them.
#[derive(Debug)]
pub(super) struct Replicas {
    pub(super) me: Uuid,
    address: String,
    known: Mutex<Known>,
    outbox: Mutex<HashSet<ReplicaNews>>,
    ring: Notify,
}

#[derive(Debug, Default)]
struct Known {
    others: Others,
    /// Number of the last news that was heard, by replica.
    heard: HashMap<Uuid, u64>,
    elsewhere: HashMap<AgentKey, AgentSession>,
    /// When the others were last looked at.
    looked: Option<Time>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicas {
    pub(super) fn new(me: Uuid, address: &HostPort) -> Self {
        Self {
            me,
            address: address.to_string(),
            known: Mutex::default(),
            outbox: Mutex::default(),
            ring: Notify::new(),
        }
    }

    fn row(&self, beat: u64) -> Replica {
        Replica { id: self.me, address: self.address.clone(), beat }
    }

    /// Has something told to the others.
    pub(super) fn tell(&self, news: ReplicaNews) {
        lock(&self.outbox).insert(news);
        self.ring.notify_one();
    }

    /// The session of an agent at a replica that lives.
    pub(super) fn elsewhere(&self, agent: AgentKey) -> Option<LiveSession> {
        let known = lock(&self.known);
        let session = known.elsewhere.get(&agent)?;
        known.others.address(session.replica)?;
        Some(LiveSession {
            epoch: session.epoch,
            source: session.source,
            connected_at: session.connected_at,
            // The holder ends a session that is silent for longer than a look takes.
            last_heartbeat: known.looked.unwrap_or(session.connected_at),
            rtt_us: None,
            clock_skew_ms: None,
            facts: None,
        })
    }

    /// Who holds the session of an agent, as far as it is known.
    pub(super) fn owner(&self, agent: AgentKey) -> Option<Owner> {
        let known = lock(&self.known);
        let session = known.elsewhere.get(&agent)?;
        known.owner_of(session)
    }

    fn note(&self, session: AgentSession) {
        let agent = key(session.org, session.agent);
        let mut known = lock(&self.known);
        if session.replica == self.me {
            known.elsewhere.remove(&agent);
        } else {
            known.elsewhere.insert(agent, session);
        }
    }
}

impl Known {
    fn owner_of(&self, session: &AgentSession) -> Option<Owner> {
        let address = self.others.address(session.replica)?;
        Some(Owner { replica: session.replica, address: address.to_owned() })
    }
}

impl App {
    /// The id under which other replicas know this one; none when it is the only one.
    #[must_use]
    pub fn replica(&self) -> Option<Uuid> {
        self.inner.replicas.as_ref().map(|replicas| replicas.me)
    }

    /// The other replica that holds an agent's session, as far as it is known.
    #[must_use]
    pub fn owner(&self, agent: AgentKey) -> Option<Owner> {
        self.inner.replicas.as_ref()?.owner(agent)
    }

    /// The replica that holds a session, while it lives.
    pub(super) fn owner_of(&self, session: &AgentSession) -> Option<Owner> {
        lock(&self.inner.replicas.as_ref()?.known).owner_of(session)
    }

    /// The same as [`App::owner`], read anew.
    pub async fn ask_owner(&self, agent: AgentKey) -> Result<Option<Owner>, Error> {
        let Some(replicas) = &self.inner.replicas else { return Ok(None) };
        let found = self.store().sessions_of_agents(&[agent.agent.into()]).await?.pop();
        match found.filter(|session| session.org.uuid() == agent.org) {
            Some(session) => replicas.note(session),
            None => drop(lock(&replicas.known).elsewhere.remove(&agent)),
        }
        Ok(replicas.owner(agent))
    }

    /// How this replica dials another: with a certificate of its own, made for it.
    pub fn replica_client(&self) -> Result<ClientConfig, Error> {
        let failed = |e: &dyn std::error::Error| Error::internal("no replica's certificate", e.to_string());
        let replica = self.replica().ok_or_else(|| Error::internal("no replica", "there is only one"))?;
        let key = KeyPair::generate().map_err(|e| failed(&e))?;
        let public = key.verified_key().map_err(|e| failed(&e))?;
        let servers = &self.inner.keys.servers;
        let issued = servers
            .issue_identity(Identity::Replica { replica }, &public, self.now(), CERTIFICATE)
            .map_err(|e| failed(&e))?;
        let identity = ClientIdentity { chain: &issued.chain, key: &key };
        let clock = std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider);
        trusted_client(self.roots(), Some(identity), &[b"h2"], clock).map_err(|e| failed(&e))
    }

    /// Has the others told; a single one tells nobody.
    pub(super) fn tell_replicas(&self, news: ReplicaNews) {
        if let Some(replicas) = &self.inner.replicas {
            replicas.tell(news);
        }
    }

    /// Enters among the replicas: before an agent can have a session here.
    pub async fn enter_replicas(&self) -> Result<(), Error> {
        match &self.inner.replicas {
            Some(replicas) => Ok(self.store().replica_beats(&replicas.row(0)).await?),
            None => Ok(()),
        }
    }

    /// Is one of several until the process stops.
    pub async fn be_replica(self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let Some(replicas) = &self.inner.replicas else { return Ok(()) };
        let mut round = Round { app: &self, replicas, beat: 1, told: 1, failing: false };
        let mut beats = tokio::time::interval(EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = async {
                tokio::select! {
                    // First, so that much news never keeps a beat back.
                    biased;
                    _ = beats.tick() => true,
                    () = replicas.ring.notified() => false,
                }
            };
            match stop.run_until_cancelled(next).await {
                Some(true) => round.look().await,
                Some(false) => round.tell().await,
                None => return Ok(()),
            }
        }
    }

    /// Leaves the others; the last thing before the store closes.
    pub async fn leave_replicas(&self) -> Result<(), Error> {
        match self.replica() {
            Some(me) => Ok(self.store().forget_replica(me).await?),
            None => Ok(()),
        }
    }
}

fn held_by(replica: Uuid, info: &SessionInfo) -> AgentSession {
    AgentSession {
        org: info.agent.org.into(),
        agent: info.agent.agent.into(),
        replica,
        epoch: info.epoch,
        instance: info.instance,
        source: info.source,
        connected_at: to_millisecond(Time::from(info.connected_at)),
    }
}

/// One look after the other.
struct Round<'a> {
    app: &'a App,
    replicas: &'a Replicas,
    beat: u64,
    told: u64,
    failing: bool,
}

impl Round<'_> {
    /// Once each [`EVERY`] and no oftener: the others' beats are counted in looks.
    async fn look(&mut self) {
        match self.exchange().await {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the other replicas can be heard again");
                    // What was told long ago may be gone by now.
                    self.app.revoked_elsewhere();
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Has news written at once, between two looks.
    async fn tell(&mut self) {
        if let Err(error) = self.speak(self.app.store()).await {
            self.failed(&error);
        }
    }

    /// A failure is told once; what was not written or read is tried again at the next look.
    fn failed(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.failing, true) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the other replicas cannot be heard; they are believed to be as they were");
        }
    }

    async fn exchange(&mut self) -> Result<(), Error> {
        let store = self.app.store();
        store.replica_beats(&self.replicas.row(self.beat)).await?;
        self.beat += 1;
        self.speak(store).await?;
        let rows = store.other_replicas(self.replicas.me).await?;
        let look = lock(&self.replicas.known).others.look(rows);
        self.meet(store, &look).await?;
        let news = self.listen(store).await?;
        let all_anew = self.beat % ALL_ANEW == 2 || !look.gone.is_empty();
        self.hear(news, all_anew).await?;
        lock(&self.replicas.known).looked = Some(self.app.now());
        Ok(())
    }

    /// Tells what is in the outbox; what could not be told stays there.
    async fn speak(&mut self, store: &Store) -> Result<(), Error> {
        let news: Vec<ReplicaNews> = lock(&self.replicas.outbox).drain().collect();
        if news.is_empty() {
            return Ok(());
        }
        if let Err(error) = store.tell_replicas(self.replicas.me, self.told, &news).await {
            lock(&self.replicas.outbox).extend(news);
            // It may have been written after all; a number is never used twice.
            self.told += SKIPPED;
            return Err(error.into());
        }
        self.told += news.len() as u64;
        Ok(())
    }

    /// Takes note of who came and who went.
    async fn meet(&self, store: &Store, look: &Look) -> Result<(), Error> {
        for id in &look.new {
            tracing::info!(replica = %id, "another replica is there");
            let last = store.last_told_by(*id).await?;
            lock(&self.replicas.known).heard.insert(*id, last);
        }
        for id in &look.gone {
            tracing::info!(replica = %id, "another replica is gone");
            // What it had not told yet is not known here.
            self.app.revoked_elsewhere();
        }
        for id in &look.forgotten {
            store.forget_replica(*id).await?;
        }
        Ok(())
    }

    async fn listen(&self, store: &Store) -> Result<HashSet<ReplicaNews>, Error> {
        let others: Vec<Uuid> = lock(&self.replicas.known).others.ids().collect();
        let mut all = HashSet::new();
        for id in others {
            let seen = lock(&self.replicas.known).heard.get(&id).copied().unwrap_or(0);
            let (news, last) = store.told_by(id, seen).await?;
            all.extend(news);
            lock(&self.replicas.known).heard.insert(id, last);
        }
        Ok(all)
    }

    async fn hear(&self, news: HashSet<ReplicaNews>, all_anew: bool) -> Result<(), Error> {
        let app = self.app;
        if news.contains(&ReplicaNews::Rights) {
            app.revoked_elsewhere();
        }
        let mut touched: HashSet<OrgId> = HashSet::new();
        let mut agents: Vec<(OrgId, AgentId)> = Vec::new();
        for one in news {
            match one {
                ReplicaNews::Rights => {}
                ReplicaNews::Changes(org) => drop(touched.insert(org)),
                ReplicaNews::Session(org, agent) => agents.push((org, agent)),
            }
        }
        if all_anew {
            self.read_all().await?;
        } else if !agents.is_empty() {
            self.read_some(&agents).await?;
        }
        touched.extend(agents.into_iter().map(|(org, _)| org));
        if !touched.is_empty() {
            app.changed_elsewhere(touched);
        }
        Ok(())
    }

    async fn read_some(&self, agents: &[(OrgId, AgentId)]) -> Result<(), Error> {
        let ids: Vec<AgentId> = agents.iter().map(|(_, agent)| *agent).collect();
        let sessions = self.app.store().sessions_of_agents(&ids).await?;
        {
            let mut known = lock(&self.replicas.known);
            for (org, agent) in agents {
                known.elsewhere.remove(&key(*org, *agent));
            }
        }
        self.take(sessions);
        Ok(())
    }

    async fn read_all(&self) -> Result<(), Error> {
        let sessions = self.app.store().sessions_elsewhere(self.replicas.me).await?;
        lock(&self.replicas.known).elsewhere.clear();
        self.take(sessions);
        self.app.tidy_sessions(self.replicas.me).await
    }

    /// Notes where agents are, and ends what is left of them here.
    fn take(&self, sessions: Vec<AgentSession>) {
        for session in sessions {
            let agent = key(session.org, session.agent);
            let moved = Moved {
                agent,
                epoch: session.epoch,
                instance: session.instance,
                source: session.source.to_string(),
            };
            if session.replica != self.replicas.me
                && let Some(hub) = self.app.live().hub()
            {
                hub.moved(&moved);
            }
            self.replicas.note(session);
        }
    }
}

impl App {
    /// Makes the rows of sessions those of the sessions that are here: an end may not have
    /// been written, and whoever seems gone for long loses its rows.
    async fn tidy_sessions(&self, me: Uuid) -> Result<(), Error> {
        let Some(hub) = self.live().hub() else { return Ok(()) };
        let listed = self.store().sessions_of_replica(me).await?;
        // One that was just let in has not begun yet.
        let young = |session: &AgentSession| self.now() - session.connected_at < time::Duration::minutes(1);
        let over = |session: &AgentSession| hub.session(key(session.org, session.agent)).is_none();
        for session in listed.iter().filter(|session| over(session) && !young(session)) {
            self.store().session_ended(me, session.agent, session.epoch).await?;
            self.tell_replicas(ReplicaNews::Session(session.org, session.agent));
        }
        let listed: HashSet<AgentId> = listed.into_iter().map(|session| session.agent).collect();
        for held in hub.sessions() {
            let lost = held_by(me, &held);
            if !listed.contains(&lost.agent) && !young(&lost) {
                self.store().relist_session(&lost).await?;
                self.tell_replicas(ReplicaNews::Session(lost.org, lost.agent));
            }
        }
        Ok(())
    }

    /// Somebody lost a right at another replica.
    fn revoked_elsewhere(&self) {
        self.ring_revocations();
    }

    /// Something of these organisations changed at another replica.
    fn changed_elsewhere(&self, orgs: HashSet<OrgId>) {
        self.inner.targets.forget();
        for org in orgs {
            self.feed().skip(org);
        }
    }
}
