//! Records and live state together: what a caller is shown.

use std::collections::HashMap;
use std::net::IpAddr;

use super::live::LiveSession;
use super::{App, Error};
use crate::domain::{Agent, AgentState, Caller, Cluster, ClusterId, ClusterState, Facts, Time};
use crate::store::OrgStore;

/// A cluster as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    /// Its record.
    pub cluster: Cluster,
    /// What it is doing.
    pub state: ClusterState,
    /// Its present agent.
    pub agent: Option<AgentView>,
    /// What the agent last told of it.
    pub facts: Option<Facts>,
}

/// An agent as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentView {
    /// Its record.
    pub agent: Agent,
    /// What it is doing.
    pub state: AgentState,
    /// When it was last here.
    pub last_seen_at: Option<Time>,
    /// Since when its connection lives.
    pub connected_since: Option<Time>,
    /// Where it is, or last was.
    pub source: Option<IpAddr>,
    /// Epoch of its session.
    pub epoch: Option<u64>,
    /// Round trip of a heartbeat, microseconds.
    pub rtt_us: Option<u64>,
    /// How far its clock is ahead of ours.
    pub clock_skew_ms: Option<i64>,
}

impl AgentView {
    pub(super) fn new(agent: Agent, session: Option<&LiveSession>) -> Self {
        Self {
            state: agent.state(session.is_some()),
            last_seen_at: session.map(|s| s.last_heartbeat).or(agent.last_seen_at),
            connected_since: session.map(|s| s.connected_at),
            source: session.map(|s| s.source.ip()).or(agent.last_source),
            epoch: session.map(|s| s.epoch),
            rtt_us: session.and_then(|s| s.rtt_us),
            clock_skew_ms: session.and_then(|s| s.clock_skew_ms),
            agent,
        }
    }
}

impl ClusterView {
    fn new(cluster: Cluster, agent: Option<Agent>, session: Option<&LiveSession>) -> Self {
        let told = session.and_then(|s| s.facts.clone());
        let facts = told.or_else(|| agent.as_ref().and_then(|a| a.facts.clone()));
        let state = ClusterState::of(&cluster, agent.is_some(), session.is_some());
        Self { cluster, state, agent: agent.map(|a| AgentView::new(a, session)), facts }
    }

    /// The last that is told of a cluster that was deleted.
    pub(super) fn deleted(cluster: Cluster) -> Self {
        Self { cluster, state: ClusterState::Deleted, agent: None, facts: None }
    }
}

impl App {
    pub(super) async fn view(&self, store: &OrgStore, cluster: Cluster) -> Result<ClusterView, Error> {
        let agent = store.agent_of(cluster.id).await?;
        Ok(self.joined(store, cluster, agent))
    }

    pub(super) async fn views(
        &self,
        store: &OrgStore,
        clusters: Vec<Cluster>,
    ) -> Result<Vec<ClusterView>, Error> {
        let ids: Vec<ClusterId> = clusters.iter().map(|c| c.id).collect();
        let agents = store.agents_of(&ids).await?;
        // Oldest first, so the newest of a cluster is what stays.
        let mut by_cluster: HashMap<_, _> = agents.into_iter().map(|a| (a.cluster, a)).collect();
        let assemble = |cluster: Cluster| {
            let agent = by_cluster.remove(&cluster.id);
            self.joined(store, cluster, agent)
        };
        Ok(clusters.into_iter().map(assemble).collect())
    }

    fn joined(&self, store: &OrgStore, cluster: Cluster, agent: Option<Agent>) -> ClusterView {
        let session = agent.as_ref().and_then(|a| self.live().session(store.org(), a.id));
        ClusterView::new(cluster, agent, session.as_ref())
    }

    pub(super) fn view_of_agent(&self, caller: &Caller, agent: Agent) -> AgentView {
        let session = self.live().session(caller.org(), agent.id);
        AgentView::new(agent, session.as_ref())
    }
}
