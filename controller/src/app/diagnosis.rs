//! What is the matter with a cluster.

use super::{App, Error};
use crate::domain::diagnosis::{Observed, Presence, diagnose};
use crate::domain::{Attempt, Caller, ClusterRef, Diagnosis};

impl App {
    /// The six lights of a cluster, and its latest attempts, newest first.
    pub async fn diagnosis(
        &self,
        caller: &Caller,
        which: &ClusterRef,
    ) -> Result<(Diagnosis, Vec<Attempt>), Error> {
        let store = self.store().org(caller);
        let cluster = store.cluster(which).await?.ok_or(Error::NotFound("cluster"))?;
        let agent = store.agent_of(cluster.id).await?;
        let attempts = store.attempts(cluster.id).await?;
        let session = agent.as_ref().and_then(|a| self.live().session(caller.org(), a.id));
        let session =
            session.map(|s| Presence { since: s.connected_at, source: s.source.ip(), facts: s.facts });
        let observed = Observed { cluster: &cluster, agent: agent.as_ref(), session, attempts: &attempts };
        Ok((diagnose(&observed), attempts))
    }
}
