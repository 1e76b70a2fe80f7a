//! Whether an agent that connects may have a session.

use std::net::IpAddr;

use culvert_tunnel::AgentKey;

use super::enrolment::{TurnedAway, check_clock};
use super::{App, Error};
use crate::domain::agent::bounded_text;
use crate::domain::{AgentId, Caller, Cause, OrgId, Outcome, Refused, Stage};
use crate::store::Admitted;

/// An agent that asks for a session.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Who, by its verified certificate.
    pub agent: AgentKey,
    /// Serial number of that certificate, as `culvert_pki::verify::Peer` tells it.
    pub serial: &'a str,
    /// The version it tells.
    pub version: &'a str,
    /// Its clock, milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// Where it comes from.
    pub source: IpAddr,
}

/// An agent that may have a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Its session's epoch must be above this.
    pub epoch_floor: u64,
}

impl App {
    /// Lets an agent in, or tells why not; a refusal is kept for the diagnosis.
    pub async fn admit(&self, arrival: Arrival<'_>) -> Result<Welcome, TurnedAway> {
        let outcome = self.admit_inner(&arrival).await;
        if let Err(turned) = &outcome {
            self.keep_refusal(arrival.agent, arrival.source, turned).await;
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
        let agent = self.live_record(org, id).await?;
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
            source: arrival.source,
            generation: certificate.generation,
            at: now,
        };
        tx.agent_admitted(&seen).await?;
        tx.commit().await?;
        Ok(Welcome { epoch_floor: agent.last_epoch })
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
