//! The shapes that several routes share, and how values become them.

use std::collections::BTreeMap;

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::app::{AgentView, ClusterView};
use crate::domain::{self, Cursor, Page, Refused, Time};

/// A moment as RFC 3339 has it, in UTC.
pub(super) fn at(moment: Time) -> String {
    // Only years beyond 9999 have no such form, and the store refuses them.
    moment.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

pub(super) fn cursor(next: Option<&Cursor>) -> Option<String> {
    next.map(Cursor::encode)
}

/// A customer's cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Cluster {
    /// `cls_…`
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// `pending`, `connected`, `disconnected` or `locked`; in the change feed also
    /// `deleted`.
    state: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    /// Set while nobody may use it.
    lock: Option<Lock>,
    /// Its present agent.
    agent: Option<Agent>,
    /// What the agent last told of it.
    facts: Option<Facts>,
}

/// An instant refusal.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Lock {
    /// Why.
    message: String,
    #[schema(format = DateTime)]
    at: String,
}

/// Our process in a cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Agent {
    /// `agt_…`
    id: String,
    /// `cls_…`
    cluster_id: String,
    /// `connected`, `disconnected` or `revoked`.
    state: &'static str,
    version: String,
    #[schema(format = DateTime)]
    certificate_not_after: String,
    #[schema(format = DateTime)]
    enrolled_at: String,
    #[schema(format = DateTime)]
    last_seen_at: Option<String>,
    #[schema(format = DateTime)]
    connected_since: Option<String>,
    /// Address it comes, or last came, from.
    source: Option<String>,
    epoch: Option<u64>,
    /// Round trip on its connection, microseconds.
    rtt_us: Option<u64>,
    /// How far its clock is ahead of the controller's.
    clock_skew_ms: Option<i64>,
    /// Why it was last turned away.
    last_refusal: Option<LastRefusal>,
}

/// Why an agent was turned away.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct LastRefusal {
    /// A stable word for programs.
    code: &'static str,
    /// What was seen.
    detail: String,
    /// What to do about it.
    fix: &'static str,
    /// Where it came from.
    source: String,
    #[schema(format = DateTime)]
    at: String,
}

/// What an agent found in its cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Facts {
    kubernetes_version: String,
    nodes: u32,
    storage_classes: Vec<String>,
    /// The uid of the namespace kube-system.
    cluster_uid: String,
    /// Median time of a small request from agent to API server, microseconds.
    api_latency_us: u64,
    /// `direct` or `proxy`; with `, inside a WebSocket` after it, and why, where something on the way ends TLS.
    route: String,
    /// The agent's local policy in one sentence; empty when it allows all.
    policy: String,
    /// A probe that failed, and why; null when none did.
    problem: Option<String>,
}

/// An attempt to enrol.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Attempt {
    /// `att_…`
    id: String,
    /// `cls_…`
    cluster_id: String,
    #[schema(format = DateTime)]
    at: String,
    source: String,
    /// `reached`, `tls`, `token`, `identity`, `tunnel` or `capabilities`.
    stage: &'static str,
    /// `running`, `passed`, `refused` or `failed`.
    outcome: &'static str,
    /// What stopped it, as a stable word.
    code: Option<&'static str>,
    /// What exactly was seen.
    detail: Option<String>,
    /// What to do about it.
    fix: Option<&'static str>,
    agent_version: Option<String>,
}

impl From<ClusterView> for Cluster {
    fn from(view: ClusterView) -> Self {
        Self {
            id: view.cluster.id.to_string(),
            name: view.cluster.name.to_string(),
            labels: view.cluster.labels.as_map().clone(),
            state: view.state.as_str(),
            created_at: at(view.cluster.created_at),
            lock: view.cluster.lock.map(|lock| Lock { message: lock.message, at: at(lock.at) }),
            agent: view.agent.map(Agent::from),
            facts: view.facts.map(Facts::from),
        }
    }
}

impl From<AgentView> for Agent {
    fn from(view: AgentView) -> Self {
        let AgentView { agent, .. } = view;
        Self {
            id: agent.id.to_string(),
            cluster_id: agent.cluster.to_string(),
            state: view.state.as_str(),
            version: agent.version,
            certificate_not_after: at(agent.certificate_not_after),
            enrolled_at: at(agent.enrolled_at),
            last_seen_at: view.last_seen_at.map(at),
            connected_since: view.connected_since.map(at),
            source: view.source.map(|s| s.to_string()),
            epoch: view.epoch,
            rtt_us: view.rtt_us,
            clock_skew_ms: view.clock_skew_ms,
            last_refusal: agent.last_refusal.map(LastRefusal::from),
        }
    }
}

impl From<Refused> for LastRefusal {
    fn from(refused: Refused) -> Self {
        Self {
            code: refused.cause.code(),
            detail: explained(refused.cause, &refused.detail),
            fix: refused.cause.fix(),
            source: refused.source.to_string(),
            at: at(refused.at),
        }
    }
}

impl From<domain::Facts> for Facts {
    fn from(facts: domain::Facts) -> Self {
        Self {
            kubernetes_version: facts.kubernetes_version,
            nodes: facts.nodes,
            storage_classes: facts.storage_classes,
            cluster_uid: facts.cluster_uid,
            api_latency_us: facts.api_latency_us,
            route: facts.route,
            policy: facts.policy,
            problem: Some(facts.problem).filter(|p| !p.is_empty()),
        }
    }
}

impl From<domain::Attempt> for Attempt {
    fn from(attempt: domain::Attempt) -> Self {
        let detail = match attempt.cause {
            Some(cause) => Some(explained(cause, &attempt.detail)),
            None => Some(attempt.detail).filter(|d| !d.is_empty()),
        };
        Self {
            id: attempt.id.to_string(),
            cluster_id: attempt.cluster.to_string(),
            at: at(attempt.at),
            source: attempt.source.to_string(),
            stage: attempt.stage.as_str(),
            outcome: attempt.outcome.as_str(),
            code: attempt.cause.map(domain::Cause::code),
            detail,
            fix: attempt.cause.map(domain::Cause::fix),
            agent_version: attempt.agent_version,
        }
    }
}

fn explained(cause: domain::Cause, detail: &str) -> String {
    if detail.is_empty() { cause.summary().to_owned() } else { format!("{} ({detail})", cause.summary()) }
}

/// A page of things.
pub(super) fn items<T, W: From<T>>(page: Page<T>) -> (Vec<W>, Option<String>) {
    let next = cursor(page.next.as_ref());
    (page.items.into_iter().map(W::from).collect(), next)
}
