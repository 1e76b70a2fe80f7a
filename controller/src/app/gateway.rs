//! Whether a caller may use a cluster through the gateway, and which agent speaks
//! for it.

use culvert_tunnel::AgentKey;

use super::cache::Cache;
use super::{App, Error, live};
use crate::domain::{Caller, Cause, ClusterId, ClusterName, ClusterRef, Lock, OrgId};

/// Where a caller's requests go, and in whose name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: ClusterName,
    /// The agent that speaks for it.
    pub agent: AgentKey,
    /// The user name the API server sees.
    pub user: String,
    /// The groups the API server sees.
    pub groups: Vec<String>,
}

/// Routes by organisation and reference.
#[derive(Debug, Default)]
pub(super) struct TargetCache(Cache<(OrgId, ClusterRef), Route>);

/// What the store says of a cluster, whoever asks.
#[derive(Debug, Clone)]
struct Route {
    cluster: ClusterId,
    name: ClusterName,
    lock: Option<Lock>,
    agent: Option<AgentKey>,
}

impl TargetCache {
    pub(super) fn forget(&self) {
        self.0.forget();
    }
}

impl App {
    /// Where requests of `caller` to a cluster go. No write, and usually no query:
    /// this is asked for every `kubectl` request, and again by live streams when
    /// `revocations` moves.
    pub async fn authorise_gateway(&self, caller: &Caller, which: &ClusterRef) -> Result<Target, Error> {
        let route = self.route(caller, which).await?;
        if let Some(lock) = route.lock {
            return Err(Error::Denied {
                code: Cause::Locked.code(),
                reason: format!("the cluster {} is locked: {}", route.name, lock.message),
                next: "ask an administrator of your organisation to unlock it".to_owned(),
            });
        }
        let agent = route.agent.ok_or_else(|| Error::Conflict {
            code: "not_enrolled",
            reason: format!("no agent of the cluster {} has enrolled, or its agent is locked", route.name),
        })?;
        Ok(Target {
            cluster: route.cluster,
            cluster_name: route.name,
            agent,
            user: caller.kubernetes_user(),
            groups: caller.kubernetes_groups(),
        })
    }

    async fn route(&self, caller: &Caller, which: &ClusterRef) -> Result<Route, Error> {
        let key = (caller.org(), which.clone());
        let now = self.now();
        let begun = match self.inner.targets.0.get(&key, now) {
            Ok(known) => return Ok(known),
            Err(begun) => begun,
        };
        let store = self.store().org(caller);
        let cluster = store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        let agent = store.agent_of(cluster.id).await?.filter(|agent| agent.locked.is_none());
        let route = Route {
            cluster: cluster.id,
            name: cluster.name,
            lock: cluster.lock,
            agent: agent.map(|agent| live::key(caller.org(), agent.id)),
        };
        self.inner.targets.0.put(begun, key, route.clone(), now);
        Ok(route)
    }
}
