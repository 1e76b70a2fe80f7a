//! What is written down of sessions as they come and go. Heartbeats are not.

use culvert_tunnel::{AgentKey, Ended, SessionEvent};

use super::enrolment::TurnedAway;
use super::feed::News;
use super::{App, Error, live};
use crate::domain::{AgentId, Caller, Cause, ClusterId, ClusterRef, OrgId, ReplicaNews, Stage};

impl App {
    /// Takes note of what the hub tells. The loop that reads the hub's events calls
    /// this with each; after it missed some it calls [`App::catch_up`].
    pub async fn session_event(&self, event: SessionEvent) -> Result<(), Error> {
        match event {
            SessionEvent::Connected(info) => self.session_began(info.agent, info.epoch).await,
            SessionEvent::Facts(info) => match &info.facts {
                Some(told) => self.facts_told(info.agent, live::facts(told)).await,
                None => Ok(()),
            },
            SessionEvent::Disconnected { agent, epoch, why } => self.session_ended(agent, epoch, &why).await,
            SessionEvent::Duplicate { agent, old, new } => {
                tracing::warn!(%agent, %old, %new, "two processes have the same identity");
                let detail = format!("the connection from {old} was replaced by one from {new}");
                let turned = TurnedAway::new(Cause::DuplicateIdentity, detail);
                self.agent_turned_away(agent, old.ip(), &turned).await
            }
            SessionEvent::Refused { agent, source, refusal } => {
                // What `admit` refused is kept already, under its own cause.
                let cause = refusal.code.as_str().parse().unwrap_or(Cause::Protocol);
                self.agent_turned_away(agent, source.ip(), &TurnedAway::new(cause, refusal.message)).await
            }
        }
    }

    async fn session_began(&self, agent: AgentKey, epoch: u64) -> Result<(), Error> {
        let (caller, id) = named(agent);
        let tx = self.store().write(&caller).await?;
        let Some(record) = tx.agent(id).await? else { return Ok(()) };
        tx.agent_epoch(id, epoch).await?;
        tx.agent_seen(id, self.now()).await?;
        tx.commit().await?;
        self.tell_replicas(ReplicaNews::Session(caller.org(), id));
        if let Some(attempt) = self.running_attempt(&caller, record.cluster).await? {
            self.advance_attempt(attempt, Stage::Tunnel, None).await;
        }
        self.hurry(&caller, record.cluster).await?;
        self.publish(caller.org(), record.cluster).await
    }

    async fn facts_told(&self, agent: AgentKey, facts: crate::domain::Facts) -> Result<(), Error> {
        let (caller, id) = named(agent);
        let tx = self.store().write(&caller).await?;
        let Some(record) = tx.agent(id).await? else { return Ok(()) };
        let new = record.facts.as_ref() != Some(&facts);
        if new {
            tx.agent_facts(id, &facts).await?;
            let known = record.facts.as_ref().map(|known| known.sealing_key.as_str());
            let other_key = known.unwrap_or_default() != facts.sealing_key;
            if other_key {
                // What was sealed to the agent's key before does not open any more.
                tx.hurry_placements_in(record.cluster, self.now()).await?;
            }
            tx.commit().await?;
            if other_key {
                self.placing();
            }
        } else {
            drop(tx);
        }
        if facts.problem.is_empty()
            && let Some(attempt) = self.running_attempt(&caller, record.cluster).await?
        {
            self.advance_attempt(attempt, Stage::Capabilities, None).await;
        }
        self.publish(caller.org(), record.cluster).await
    }

    async fn session_ended(&self, agent: AgentKey, epoch: u64, why: &Ended) -> Result<(), Error> {
        let (caller, id) = named(agent);
        if let Some(me) = self.replica() {
            self.store().session_ended(me, id, epoch).await?;
            self.tell_replicas(ReplicaNews::Session(caller.org(), id));
        }
        tracing::info!(%agent, why = %why, "agent disconnected");
        let tx = self.store().write(&caller).await?;
        let Some(record) = tx.agent(id).await? else { return Ok(()) };
        tx.agent_seen(id, self.now()).await?;
        tx.commit().await?;
        self.publish(caller.org(), record.cluster).await
    }

    /// Writes down when each agent that is here last gave a sign of life.
    pub async fn catch_up(&self) -> Result<usize, Error> {
        let here = self.live().all();
        for (org, agent, last_heartbeat) in &here {
            let tx = self.store().write(&Caller::controller(*org)).await?;
            tx.agent_seen(*agent, *last_heartbeat).await?;
            tx.commit().await?;
        }
        Ok(here.len())
    }

    /// Ends sessions of agents that may have none: deleted, revoked or locked by
    /// another process, or by a change whose cut was lost.
    pub async fn cut_unwanted(&self) -> Result<usize, Error> {
        let mut cut = 0;
        for (org, agent, _) in self.live().all() {
            match self.live_record(org, agent).await {
                Ok(_) => {}
                Err(TurnedAway { source: Some(error), .. }) => return Err(*error),
                Err(turned) => {
                    self.live().cut(org, agent, turned.cause, &turned.to_string());
                    cut += 1;
                }
            }
        }
        Ok(cut)
    }

    /// Tells the feed how a cluster and its agent are now.
    async fn publish(&self, org: OrgId, cluster: ClusterId) -> Result<(), Error> {
        let caller = Caller::controller(org);
        let store = self.store().org(&caller);
        let Some(record) = store.cluster(&ClusterRef::Id(cluster)).await? else { return Ok(()) };
        let view = self.view(&store, record).await?;
        self.publish_cluster(&caller, &view);
        if let Some(agent) = view.agent {
            self.feed().publish(org, cluster, News::Agent(Box::new(agent)));
        }
        Ok(())
    }

    /// As [`Self::publish`], for changes that are made and must not seem to fail.
    pub(super) async fn publish_by_id(&self, org: OrgId, cluster: ClusterId) {
        if let Err(error) = self.publish(org, cluster).await {
            tracing::warn!(%cluster, error = &error as &dyn std::error::Error, "change not published");
        }
    }
}

fn named(agent: AgentKey) -> (Caller, AgentId) {
    let id = AgentId::from(agent.agent);
    (Caller::agent(agent.org.into(), id), id)
}
