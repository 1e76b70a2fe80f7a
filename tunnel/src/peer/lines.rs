//! Connections to other replicas: one each, made when it is first wanted.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use super::{Owner, Peering};
use crate::holder::OpenCall;
use crate::stream::Group;
use crate::{AgentKey, Limits, Link};

/// Groups of agents whose calls have all ended are forgotten beyond this.
const GROUPS: usize = 4096;

/// The line to one replica, made by one caller at a time.
type Slot = Arc<Turn<Option<Arc<Link>>>>;

/// Keeps a line as long as a call on it lives.
pub(crate) struct OnLine(Arc<Link>);

impl OpenCall for OnLine {}

impl fmt::Debug for OnLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnLine({:?})", Arc::as_ptr(&self.0))
    }
}

impl From<Arc<Link>> for OnLine {
    fn from(line: Arc<Link>) -> Self {
        Self(line)
    }
}

/// What a replica has of the others.
pub(crate) struct Lines {
    peering: Box<dyn Peering>,
    limits: Limits,
    slots: Mutex<HashMap<Uuid, Slot>>,
    /// Calls of one agent share a budget here as they do where it is connected.
    groups: Mutex<HashMap<AgentKey, Weak<Group>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    pub(crate) fn new(peering: impl Peering, limits: Limits) -> Self {
        Self { peering: Box::new(peering), limits, slots: Mutex::default(), groups: Mutex::default() }
    }

    /// A line to the replica that holds the agent's session; none when nobody does or it
    /// cannot be reached.
    pub(crate) async fn reach(&self, agent: AgentKey, anew: bool) -> Option<Arc<Link>> {
        let known = if anew { None } else { self.peering.owner(agent) };
        let owner = match known {
            Some(owner) => owner,
            None => self.peering.ask(agent).await?,
        };
        match self.line(&owner).await {
            Ok(line) => Some(line),
            Err(error) => {
                let Owner { replica, address } = owner;
                tracing::debug!(%replica, address, %error, "the replica that holds the agent cannot be reached");
                None
            }
        }
    }

    /// The line to a replica, made anew when it has ended.
    pub(crate) async fn line(&self, owner: &Owner) -> io::Result<Arc<Link>> {
        let slot = lock(&self.slots).entry(owner.replica).or_default().clone();
        let mut line = slot.lock().await;
        if let Some(line) = line.as_ref().filter(|line| !line.is_over()) {
            return Ok(line.clone());
        }
        *line = None;
        match self.begin(owner).await {
            Ok(made) => Ok(line.insert(made).clone()),
            Err(error) => {
                // Replicas come and go, and each has an id of its own.
                lock(&self.slots).remove(&owner.replica);
                Err(error)
            }
        }
    }

    async fn begin(&self, owner: &Owner) -> io::Result<Arc<Link>> {
        let io = self.peering.dial(owner).await?;
        let line = Link::start(io, self.limits.clone()).await.map_err(io::Error::other)?;
        tracing::info!(replica = %owner.replica, address = owner.address, "connected to another replica");
        Ok(Arc::new(line))
    }

    /// A line takes no new calls any more; those on it run on.
    pub(crate) fn retire(&self, line: &Arc<Link>) {
        lock(&self.slots).retain(|_, slot| {
            // Whoever holds it is making a new one.
            let Ok(known) = slot.try_lock() else { return true };
            !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, line))
        });
    }

    pub(crate) fn group(&self, agent: AgentKey) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(&agent).and_then(Weak::upgrade) {
            return group;
        }
        if groups.len() >= GROUPS {
            groups.retain(|_, group| group.strong_count() > 0);
        }
        let group = Arc::default();
        groups.insert(agent, Arc::downgrade(&group));
        group
    }
}
