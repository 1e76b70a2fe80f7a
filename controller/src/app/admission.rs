//! Whether an agent that connects may have a session.

use std::net::{IpAddr, SocketAddr};

use culvert_tunnel::AgentKey;

use super::enrolment::{TurnedAway, check_clock};
use super::{App, Error};
use crate::domain::agent::bounded_text;
use crate::domain::{AgentId, AgentSession, Caller, Cause, OrgId, Outcome, Refused, Stage, Time};
use crate::store::{Admitted, Claim as StoreClaim, OrgTx};
use culvert_tunnel::Owner;

/// An agent that asks for a session.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Who, by its verified certificate.
    pub agent: AgentKey,
    /// Serial number of that certificate, as `culvert_pki::verify::Peer` tells it.
    pub serial: &'a str,
    /// The version it tells.
    pub version: &'a str,
    /// Its process.
    pub instance: [u8; 16],
    /// The highest epoch that it knows of.
    pub last_epoch: u64,
    /// It wants a place only where no other process of its identity has one.
    pub standby: bool,
    /// Its clock, milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// Where it comes from.
    pub source: SocketAddr,
}

/// An agent that may have a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its session's epoch.
    pub epoch: u64,
    /// The replica that held its session until now, to be told.
    pub moved_from: Option<Owner>,
}

impl App {
    /// Lets an agent in, or tells why not; a refusal is kept for the diagnosis.
    pub async fn admit(&self, arrival: Arrival<'_>) -> Result<Welcome, TurnedAway> {
        let outcome = self.admit_inner(&arrival).await;
        if let Err(turned) = &outcome {
            self.keep_refusal(arrival.agent, arrival.source.ip(), turned).await;
        }
        outcome
    }

    /// Keeps a refusal that is made whether or not it can be kept.
    pub(super) async fn keep_refusal(&self, agent: AgentKey, source: IpAddr, turned: &TurnedAway) {
        if let Err(error) = self.agent_turned_away(agent, source, turned).await {
            tracing::warn!(%agent, error = &error as &dyn std::error::Error, "refusal not kept");
        }
    }

    async fn admit_inner(&self, arrival: &Arrival<'_>) -> Result<Welcome, TurnedAway> {
        let now = self.now();
        let (org, id) = (OrgId::from(arrival.agent.org), AgentId::from(arrival.agent.agent));
        self.live_record(org, id).await?;
        self.check_version(arrival.version)?;
        check_clock(arrival.clock_ms, now)?;
        let caller = Caller::agent(org, id);
        let certificate = self.store().org(&caller).certificate(arrival.serial).await?;
        let certificate = certificate.filter(|c| c.agent == id);
        let certificate = certificate.ok_or_else(|| TurnedAway::new(Cause::CertificateUnknown, ""))?;
        let tx = self.store().write(&caller).await?;
        let seen = Admitted {
            agent: id,
            version: bounded_text(arrival.version, 100),
            source: arrival.source.ip(),
            generation: certificate.generation,
            at: now,
        };
        tx.agent_admitted(&seen).await?;
        let welcome = self.claim_session(&tx, arrival, now).await?;
        tx.commit().await?;
        Ok(welcome)
    }

    /// Gives the session its epoch, and takes it over from whichever replica holds it.
    async fn claim_session(
        &self,
        tx: &OrgTx,
        arrival: &Arrival<'_>,
        now: Time,
    ) -> Result<Welcome, TurnedAway> {
        let session = AgentSession {
            org: arrival.agent.org.into(),
            agent: arrival.agent.agent.into(),
            replica: self.replica().unwrap_or_default(),
            epoch: arrival.last_epoch,
            instance: arrival.instance,
            source: arrival.source,
            connected_at: now,
        };
        let listed = self.replica().is_some();
        let before = if listed { tx.agent_session(session.agent).await? } else { None };
        let before = before.filter(|before| before.replica != session.replica);
        let moved_from = before.as_ref().and_then(|before| self.owner_of(before));
        let taken = before.is_some_and(|before| before.instance != arrival.instance) && moved_from.is_some();
        if arrival.standby && taken {
            return Err(TurnedAway::new(Cause::Standby, "another session of this agent lives"));
        }
        let epoch = tx.claim_session(StoreClaim { session: &session, listed }).await?;
        Ok(Welcome { epoch, moved_from })
    }

    /// Keeps why an agent with a valid certificate was turned away: by [`App::admit`]
    /// or by the tunnel itself.
    pub async fn agent_turned_away(
        &self,
        agent: AgentKey,
        source: IpAddr,
        turned: &TurnedAway,
    ) -> Result<(), Error> {
        let (org, id) = (OrgId::from(agent.org), AgentId::from(agent.agent));
        let caller = Caller::controller(org);
        let refused = Refused { cause: turned.cause, detail: turned.detail.clone(), source, at: self.now() };
        let tx = self.store().write(&caller).await?;
        let Some(record) = tx.agent(id).await? else { return Ok(()) };
        // The same refusal over and over is one refusal: an agent that is locked
        // knocks every half minute.
        let repeated = record.last_refusal.as_ref().is_some_and(|last| {
            last.cause == refused.cause
                && last.source == source
                && refused.at - last.at < time::Duration::minutes(1)
        });
        if repeated {
            return Ok(());
        }
        tx.agent_refused(id, &refused).await?;
        tx.commit().await?;
        self.stop_running_attempt(&caller, record.cluster, Stage::Tunnel, Outcome::Refused, turned).await?;
        self.publish_by_id(org, record.cluster).await;
        Ok(())
    }
}
