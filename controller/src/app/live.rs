//! Which agents are here now, as the tunnel's hub knows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{AgentKey, Hub, Refusal, RefusalCode, SessionInfo};

use super::replicas::Replicas;
use crate::domain::{AgentId, Cause, Facts, OrgId, Time, to_millisecond};

/// One agent's session.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSession {
    /// Its epoch.
    pub epoch: u64,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Since when.
    pub connected_at: Time,
    /// When a heartbeat last came.
    pub last_heartbeat: Time,
    /// Round trip on the connection, microseconds.
    pub rtt_us: Option<u64>,
    /// How far its clock was ahead of ours when it connected.
    pub clock_skew_ms: Option<i64>,
    /// What it told of its cluster.
    pub facts: Option<Facts>,
}

/// The sessions of this process, none in a process that serves no agents; and what is
/// known of those at other replicas.
#[derive(Clone)]
pub(super) struct Live(Option<Hub>, Option<Arc<Replicas>>);

impl Live {
    pub(super) fn new(hub: Option<Hub>, replicas: Option<Arc<Replicas>>) -> Self {
        Self(hub, replicas)
    }

    /// The sessions of this process.
    pub(super) fn hub(&self) -> Option<&Hub> {
        self.0.as_ref()
    }

    /// A way into the cluster of an agent; none in a process that serves no agents.
    pub(super) fn way(&self, agent: AgentKey) -> Option<culvert_tunnel::Cluster> {
        self.0.as_ref().map(|hub| hub.cluster(agent))
    }

    /// The session of an agent, while its heartbeats are young.
    pub(super) fn session(&self, org: OrgId, agent: AgentId) -> Option<LiveSession> {
        let agent = key(org, agent);
        let here = self.0.as_ref().and_then(|hub| hub.session(agent));
        match here.filter(|info| info.fresh) {
            Some(info) => Some((&info).into()),
            None => self.1.as_ref()?.elsewhere(agent),
        }
    }

    /// All agents that have one, with the time of their last heartbeat.
    pub(super) fn all(&self) -> Vec<(OrgId, AgentId, Time)> {
        let sessions = self.0.as_ref().map(Hub::sessions).unwrap_or_default();
        sessions.iter().map(|s| (s.agent.org.into(), s.agent.agent.into(), time(s.last_heartbeat))).collect()
    }

    /// Ends the session of an agent and every call of it.
    pub(super) fn cut(&self, org: OrgId, agent: AgentId, cause: Cause, why: &str) {
        if let Some(hub) = &self.0 {
            hub.cut(key(org, agent), Refusal::new(RefusalCode::parse(cause.code()), why));
        }
    }
}

/// The agent as the tunnel names it.
pub(super) fn key(org: OrgId, agent: AgentId) -> AgentKey {
    AgentKey { org: org.uuid(), agent: agent.uuid() }
}

fn time(moment: SystemTime) -> Time {
    to_millisecond(Time::from(moment))
}

impl From<&SessionInfo> for LiveSession {
    fn from(info: &SessionInfo) -> Self {
        Self {
            epoch: info.epoch,
            source: info.source,
            connected_at: time(info.connected_at),
            last_heartbeat: time(info.last_heartbeat),
            rtt_us: info.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            clock_skew_ms: Some(info.clock_skew_ms),
            facts: info.facts.as_ref().map(facts),
        }
    }
}

/// What an agent told, cut to what is kept.
pub(super) fn facts(told: &proto::Facts) -> Facts {
    Facts {
        kubernetes_version: told.kubernetes_version.clone(),
        nodes: told.nodes,
        storage_classes: told.storage_classes.clone(),
        cluster_uid: told.cluster_uid.clone(),
        api_latency_us: told.api_latency_us,
        route: told.route.clone(),
        policy: told.policy.clone(),
        problem: told.problem.clone(),
        sealing_key: data_encoding::HEXLOWER.encode(&told.sealing_key),
    }
    .bounded()
}
