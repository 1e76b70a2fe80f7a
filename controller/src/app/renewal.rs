//! Fresh certificates for agents: over the tunnel, and for those who come back
//! after theirs expired.

use std::net::IpAddr;
use std::time::Duration;

use culvert_pki::csr;
use culvert_pki::key::VerifiedKey;
use culvert_pki::name::Identity;
use culvert_pki::rejoin::{RejoinError, Statement};
use culvert_pki::verify::{Peer, verify_lapsed};
use culvert_tunnel::AgentKey;
use rustls::pki_types::CertificateDer;

use super::enrolment::{AgentCertificate, TurnedAway, check_clock, check_lock, new_certificate};
use super::{App, Error};
use crate::domain::agent::Counter;
use crate::domain::{Act, Agent, AgentId, Caller, Cause, ClusterRef, Lock, OrgId, Time};

/// What an agent sends to come back.
#[derive(Debug, Clone, Copy)]
pub struct Rejoin<'a> {
    /// Its expired certificate, DER.
    pub certificate: &'a [u8],
    /// A certificate request with the same key, DER.
    pub csr: &'a [u8],
    /// Counter of that certificate.
    pub generation: u64,
    /// Its version.
    pub version: &'a str,
    /// Its clock, milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// Its proof (`culvert_pki::rejoin`).
    pub signature: &'a [u8],
    /// The name of the TLS session, of `culvert_pki::rejoin::channel_binding`.
    pub channel_binding: &'a [u8; 32],
    /// Where it comes from.
    pub source: IpAddr,
}

/// A fresh certificate.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// The certificate.
    pub certificate: AgentCertificate,
    /// Its counter.
    pub generation: u64,
}

impl App {
    /// A fresh certificate for the agent of a verified client certificate.
    pub async fn renew(&self, agent: AgentKey, csr: &[u8], source: IpAddr) -> Result<Renewed, TurnedAway> {
        let now = self.now();
        let key = csr::public_key(csr).map_err(|e| TurnedAway::new(Cause::CsrInvalid, e.to_string()))?;
        let (org, id) = (OrgId::from(agent.org), AgentId::from(agent.agent));
        let record = self.live_record(org, id).await?;
        let detail = format!("from {source}");
        self.next_certificate(org, &record, &key, Act::AgentRenewed, &detail, now).await
    }

    /// A fresh certificate for an agent whose own expired while it was away.
    pub async fn rejoin(&self, asked: Rejoin<'_>) -> Result<Renewed, TurnedAway> {
        let now = self.now();
        if let Err(wait) = self.inner.enrolments.take(asked.source, now) {
            let retry_after = Some(wait);
            return Err(TurnedAway { retry_after, ..TurnedAway::new(Cause::RateLimited, "") });
        }
        let (org, id, peer) = self.lapsed(asked.certificate, now)?;
        let key = prove(&asked)?;
        // From here on it is known whose refusal it is.
        let outcome = self.rejoin_proven(org, id, &peer, &key, &asked, now).await;
        if let Err(turned) = &outcome {
            self.keep_refusal(Self::agent_key(org, id), asked.source, turned).await;
        }
        outcome
    }

    async fn rejoin_proven(
        &self,
        org: OrgId,
        id: AgentId,
        peer: &Peer,
        key: &VerifiedKey,
        asked: &Rejoin<'_>,
        now: Time,
    ) -> Result<Renewed, TurnedAway> {
        check_clock(asked.clock_ms, now)?;
        self.check_version(asked.version)?;
        let record = self.live_record(org, id).await?;
        self.check_counter(org, &record, asked, peer, now).await?;
        let detail = format!("from {}", asked.source);
        self.next_certificate(org, &record, key, Act::AgentRejoined, &detail, now).await
    }

    /// Whose expired certificate this is, once its chain was checked as of its last
    /// second.
    fn lapsed(&self, certificate: &[u8], now: Time) -> Result<(OrgId, AgentId, Peer), TurnedAway> {
        let unknown = |detail: String| TurnedAway::new(Cause::CertificateUnknown, detail);
        let leaf = CertificateDer::from(certificate);
        let claimed =
            culvert_pki::name::identity_of(&leaf, self.domain()).map_err(|e| unknown(e.to_string()))?;
        let org = claimed.org().map(OrgId::from).ok_or_else(|| unknown("not an agent's".to_owned()))?;
        let issuer = self.agents_authority(org).map_err(|_| unknown(String::new()))?.certificate().clone();
        let peer = verify_lapsed(&leaf, &[issuer], self.roots(), self.domain(), now)
            .map_err(|e| unknown(e.to_string()))?;
        match peer.identity {
            Identity::Agent { org, agent } => Ok((org.into(), agent.into(), peer)),
            _ => Err(unknown("not an agent's".to_owned())),
        }
    }

    /// The agent's record, when it may have a certificate.
    pub(super) async fn live_record(&self, org: OrgId, id: AgentId) -> Result<Agent, TurnedAway> {
        let store = self.store().org(&Caller::agent(org, id));
        let agent = store
            .agent(id)
            .await?
            .ok_or_else(|| TurnedAway::new(Cause::Revoked, "its cluster was deleted"))?;
        if let Some(lock) = &agent.locked {
            return Err(TurnedAway::new(Cause::Locked, lock.message.clone()));
        }
        if agent.revoked_at.is_some() {
            return Err(TurnedAway::new(Cause::Revoked, "another agent took its cluster over"));
        }
        let cluster = store.cluster(&ClusterRef::Id(agent.cluster)).await?;
        check_lock(&cluster.ok_or_else(|| TurnedAway::new(Cause::Revoked, "its cluster was deleted"))?)?;
        Ok(agent)
    }

    /// The counter the agent shows must be that of its certificate and not below
    /// the newest it was seen to use: else its key is in two places, and both
    /// holders are locked out.
    async fn check_counter(
        &self,
        org: OrgId,
        agent: &Agent,
        asked: &Rejoin<'_>,
        peer: &Peer,
        now: Time,
    ) -> Result<(), TurnedAway> {
        let store = self.store().org(&Caller::agent(org, agent.id));
        let stored = store.certificate(peer.serial.as_str()).await?;
        let stored = stored.filter(|c| c.agent == agent.id && c.leaf == asked.certificate);
        let stored = stored.ok_or_else(|| TurnedAway::new(Cause::CertificateUnknown, ""))?;
        if stored.generation != asked.generation {
            return Err(TurnedAway::new(Cause::CertificateUnknown, "its counter is another certificate's"));
        }
        match agent.judge_counter(asked.generation) {
            Counter::Fits => Ok(()),
            Counter::Unknown => Err(TurnedAway::new(Cause::CertificateUnknown, "")),
            Counter::Behind => {
                let detail = format!(
                    "counter {} came from {} after {} was in use",
                    asked.generation, asked.source, agent.seen_generation
                );
                self.lock_agent(org, agent, &detail, now).await?;
                Err(TurnedAway::new(Cause::CounterMismatch, detail))
            }
        }
    }

    async fn lock_agent(&self, org: OrgId, agent: &Agent, detail: &str, now: Time) -> Result<(), Error> {
        let caller = Caller::controller(org);
        let message = format!("{} ({detail})", Cause::CounterMismatch.summary());
        let tx = self.store().write(&caller).await?;
        if tx.lock_agent(agent.id, &Lock { message: message.clone(), at: now }).await? {
            tx.audit(Act::AgentLocked, agent.id, detail, now).await?;
            tx.commit().await?;
        }
        tracing::warn!(agent = %agent.id, cluster = %agent.cluster, detail, "agent locked: its key is in two places");
        self.revoked();
        self.live().cut(org, agent.id, Cause::Locked, &message);
        self.publish_by_id(org, agent.cluster).await;
        Ok(())
    }

    async fn next_certificate(
        &self,
        org: OrgId,
        agent: &Agent,
        key: &VerifiedKey,
        act: Act,
        detail: &str,
        now: Time,
    ) -> Result<Renewed, TurnedAway> {
        let issued = self.issue_agent(org, agent.id, key, now)?;
        let generation = agent.generation + 1;
        let tx = self.store().write(&Caller::agent(org, agent.id)).await?;
        if !tx.renew_agent(agent.id, &new_certificate(&issued, generation)).await? {
            // Two requests at once; the one that lost asks again.
            let retry_after = Some(Duration::from_secs(1));
            let lost = TurnedAway::new(Cause::Overloaded, "another certificate was being issued");
            return Err(TurnedAway { retry_after, ..lost });
        }
        tx.audit(act, agent.id, format!("certificate number {generation} {detail}"), now).await?;
        tx.commit().await?;
        self.publish_by_id(org, agent.cluster).await;
        Ok(Renewed { certificate: self.agent_certificate(&issued), generation })
    }
}

fn prove(asked: &Rejoin<'_>) -> Result<VerifiedKey, TurnedAway> {
    let statement = Statement {
        certificate: asked.certificate,
        csr: asked.csr,
        generation: asked.generation,
        clock_ms: asked.clock_ms,
        channel_binding: asked.channel_binding,
    };
    statement.verify(asked.signature).map_err(|error| {
        let cause = match error {
            RejoinError::Request(_) | RejoinError::OtherKey => Cause::CsrInvalid,
            RejoinError::Certificate | RejoinError::Signature => Cause::CertificateUnknown,
        };
        TurnedAway::new(cause, error.to_string())
    })
}
