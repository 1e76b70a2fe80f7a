//! A join token becomes an agent with a certificate, once.

use std::net::IpAddr;
use std::time::Duration;

use culvert_pki::authority::{Authority, Issued};
use culvert_pki::csr;
use culvert_pki::key::VerifiedKey;
use culvert_pki::name::Identity;
use culvert_pki::token::{SecretHash, TokenId};

use super::{App, AttemptKey, Error, live};
use crate::domain::agent::{bounded_text, clock_is_fine, clock_skew_ms};
use crate::domain::join_token::{Redemption, Use};
use crate::domain::{
    Act, AgentId, Caller, Cause, Cluster, ClusterRef, JoinToken, OrgId, Outcome, Stage, Time, Version,
};
use crate::store::{NewCertificate, NewEnrolment, OrgTx, StoreError, StoredCertificate};

/// What an agent sends to enrol.
#[derive(Debug, Clone, Copy)]
pub struct Redeem<'a> {
    /// The token's public id.
    pub token_id: &'a str,
    /// The token's secret.
    pub secret: &'a [u8],
    /// Its certificate request, DER.
    pub csr: &'a [u8],
    /// Its version.
    pub version: &'a str,
    /// Its clock, milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// Where it comes from.
    pub source: IpAddr,
    /// The attempt that the door began for its connection.
    pub attempt: Option<AttemptKey>,
}

/// An agent that enrolled.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its certificate.
    pub certificate: AgentCertificate,
    /// Its cluster.
    pub cluster: Cluster,
    /// Its id.
    pub agent: AgentId,
    /// Counter of the certificate.
    pub generation: u64,
}

/// A certificate for an agent, and the roots to trust.
#[derive(Debug, Clone)]
pub struct AgentCertificate {
    /// Leaf and intermediate, DER.
    pub chain: Vec<Vec<u8>>,
    /// Roots, DER.
    pub roots: Vec<Vec<u8>>,
    /// Start of validity.
    pub not_before: Time,
    /// End of validity.
    pub not_after: Time,
}

/// An agent that was not let in, and why. Causes and remedies are those of the
/// table in `domain::cause`.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", cause.summary(), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct TurnedAway {
    /// Why.
    pub cause: Cause,
    /// What exactly was seen, fit for the other end.
    pub detail: String,
    /// When to try again, if that will help.
    pub retry_after: Option<Duration>,
    /// What failed at our end, for the log.
    #[source]
    pub source: Option<Box<Error>>,
}

impl TurnedAway {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), retry_after: None, source: None }
    }
}

impl From<Error> for TurnedAway {
    fn from(error: Error) -> Self {
        let retry_after = Some(Duration::from_secs(5));
        Self { cause: Cause::Internal, detail: String::new(), retry_after, source: Some(Box::new(error)) }
    }
}

impl From<StoreError> for TurnedAway {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl App {
    /// Redeems a join token. The same token with the same key gets the same
    /// certificate; of many keys at once one gets it.
    pub async fn redeem(&self, asked: Redeem<'_>) -> Result<Enrolled, TurnedAway> {
        let now = self.now();
        if let Err(wait) = self.inner.enrolments.take(asked.source, now) {
            let retry_after = Some(wait);
            return Err(TurnedAway { retry_after, ..TurnedAway::new(Cause::RateLimited, "") });
        }
        let (org, token, key_cluster) = self.known_token(&asked).await?;
        let attempt = match asked.attempt {
            Some(attempt) if attempt.cluster == token.cluster => attempt,
            _ => self.begin_attempt(org, token.cluster, asked.source).await?,
        };
        self.advance_attempt(attempt, Stage::Tls, Some(asked.version)).await;
        let outcome = match key_cluster {
            true => self.redeem_known(org, &token, &asked, now).await,
            false => Err(TurnedAway::new(Cause::TokenUnknown, "its secret is not the one that was issued")),
        };
        match &outcome {
            Ok(_) => self.advance_attempt(attempt, Stage::Identity, None).await,
            Err(turned) => {
                let stage = stage_of(turned.cause);
                self.stop_attempt(attempt, stage, Outcome::Refused, turned.cause, &turned.detail).await;
            }
        }
        outcome
    }

    /// The token's record, and whether the secret is right.
    async fn known_token(&self, asked: &Redeem<'_>) -> Result<(OrgId, JoinToken, bool), TurnedAway> {
        let id: TokenId = asked
            .token_id
            .parse()
            .map_err(|_| TurnedAway::new(Cause::TokenMalformed, "the token's id does not have its form"))?;
        let found = self.store().join_token_by_public_id(&id.to_string()).await?;
        let (org, token, hash) = found.ok_or_else(|| TurnedAway::new(Cause::TokenUnknown, ""))?;
        let stored = SecretHash::from_slice(&hash).ok_or(StoreError::Corrupt("hash"))?;
        Ok((org, token, SecretHash::of(asked.secret) == stored))
    }

    async fn redeem_known(
        &self,
        org: OrgId,
        token: &JoinToken,
        asked: &Redeem<'_>,
        now: Time,
    ) -> Result<Enrolled, TurnedAway> {
        self.check_version(asked.version)?;
        check_clock(asked.clock_ms, now)?;
        let key =
            csr::public_key(asked.csr).map_err(|e| TurnedAway::new(Cause::CsrInvalid, e.to_string()))?;
        let caller = Caller::controller(org);
        let store = self.store().org(&caller);
        let cluster = store.cluster(&ClusterRef::Id(token.cluster)).await?;
        let cluster =
            cluster.ok_or_else(|| TurnedAway::new(Cause::TokenUnknown, "its cluster was deleted"))?;
        check_lock(&cluster)?;
        match token.judge(key.pin().as_bytes(), asked.source, now).map_err(|c| explained(c, token))? {
            Redemption::Again(agent) => self.again(&caller, cluster, agent).await,
            Redemption::Fresh => self.first(org, token, cluster, asked, &key, now).await,
        }
    }

    /// Redeems a token that nobody had used when it was read.
    async fn first(
        &self,
        org: OrgId,
        token: &JoinToken,
        cluster: Cluster,
        asked: &Redeem<'_>,
        key: &VerifiedKey,
        now: Time,
    ) -> Result<Enrolled, TurnedAway> {
        let agent = AgentId::generate();
        let issued = self.issue_agent(org, agent, key, now)?;
        let used = Use { at: now, from: asked.source, key: *key.pin().as_bytes(), agent };
        let caller = Caller::agent(org, agent);
        let tx = self.store().write(&caller).await?;
        tx.hold_cluster(cluster.id).await?;
        if !tx.use_join_token(token.id, &used).await? {
            drop(tx);
            return self.lost_the_race(org, token, cluster, asked, key, now).await;
        }
        let certificate = new_certificate(&issued, 1);
        let enrolment = NewEnrolment {
            agent,
            cluster: cluster.id,
            version: bounded_text(asked.version, 100),
            source: asked.source,
            at: now,
            certificate,
        };
        tx.add_agent(&enrolment).await?;
        let replaced = replace_others(&tx, &cluster, agent, now).await?;
        tx.audit(
            Act::AgentEnrolled,
            agent,
            format!("in cluster {} from {}", cluster.name, asked.source),
            now,
        )
        .await?;
        tx.commit().await?;
        if replaced.is_empty() {
            self.changed()
        } else {
            self.revoked()
        }
        for old in replaced {
            self.live().cut(org, old, Cause::Revoked, "another agent enrolled for this cluster");
        }
        self.publish_by_id(org, cluster.id).await;
        let certificate = self.agent_certificate(&issued);
        Ok(Enrolled { certificate, cluster, agent, generation: 1 })
    }

    /// Somebody else was first; it may have been the same agent, asking twice.
    async fn lost_the_race(
        &self,
        org: OrgId,
        token: &JoinToken,
        cluster: Cluster,
        asked: &Redeem<'_>,
        key: &VerifiedKey,
        now: Time,
    ) -> Result<Enrolled, TurnedAway> {
        let caller = Caller::controller(org);
        // In a transaction of its own: only the writer surely sees the latest state.
        let tx = self.store().write(&caller).await?;
        let token = tx.join_token(token.cluster, token.id).await?;
        drop(tx);
        let token = token.ok_or_else(|| TurnedAway::new(Cause::TokenUnknown, "its cluster was deleted"))?;
        match token.judge(key.pin().as_bytes(), asked.source, now).map_err(|c| explained(c, &token))? {
            Redemption::Again(agent) => self.again(&caller, cluster, agent).await,
            Redemption::Fresh => Err(TurnedAway {
                retry_after: Some(Duration::from_secs(1)),
                ..TurnedAway::new(Cause::Internal, "")
            }),
        }
    }

    /// The certificate that was issued before, for the agent that did not get it.
    async fn again(&self, caller: &Caller, cluster: Cluster, agent: AgentId) -> Result<Enrolled, TurnedAway> {
        let store = self.store().org(caller);
        let record = store.agent(agent).await?.filter(|a| a.revoked_at.is_none() && a.locked.is_none());
        let record = record.ok_or_else(|| TurnedAway::new(Cause::Revoked, ""))?;
        let first = store.certificate_of(agent, 1).await?.ok_or(StoreError::Corrupt("certificate"))?;
        if first.not_after <= self.now() || record.generation != 1 {
            return Err(TurnedAway::new(
                Cause::TokenUsed,
                "the agent it made has renewed its certificate since",
            ));
        }
        let certificate = self.stored_certificate(caller.org(), first)?;
        Ok(Enrolled { certificate, cluster, agent, generation: 1 })
    }

    pub(super) fn check_version(&self, told: &str) -> Result<(), TurnedAway> {
        let least = &self.inner.minimum_version;
        match told.parse::<Version>() {
            Ok(version) if version >= *least => Ok(()),
            Ok(version) => {
                Err(TurnedAway::new(Cause::VersionTooOld, format!("{version}, and {least} is the least")))
            }
            Err(_) => Err(TurnedAway::new(
                Cause::VersionTooOld,
                format!("it told no version; {least} is the least"),
            )),
        }
    }

    pub(super) fn issue_agent(
        &self,
        org: OrgId,
        agent: AgentId,
        key: &VerifiedKey,
        now: Time,
    ) -> Result<Issued, Error> {
        let identity = Identity::Agent { org: org.uuid(), agent: agent.uuid() };
        let failed = |e| Error::internal("no certificate for an agent", e);
        let life = time::Duration::seconds(self.inner.certificate_life.as_secs().cast_signed());
        self.agents_authority(org)?.issue_identity(identity, key, now, life).map_err(failed)
    }

    pub(super) fn agent_certificate(&self, issued: &Issued) -> AgentCertificate {
        AgentCertificate {
            chain: issued.chain.iter().map(|c| c.to_vec()).collect(),
            roots: vec![self.inner.keys.root.to_vec()],
            not_before: issued.not_before,
            not_after: issued.not_after,
        }
    }

    fn stored_certificate(&self, org: OrgId, stored: StoredCertificate) -> Result<AgentCertificate, Error> {
        let issuer: &Authority = self.agents_authority(org)?;
        Ok(AgentCertificate {
            chain: vec![stored.leaf, issuer.certificate().to_vec()],
            roots: vec![self.inner.keys.root.to_vec()],
            not_before: stored.not_before,
            not_after: stored.not_after,
        })
    }

    /// The agent as the tunnel names it.
    #[must_use]
    pub fn agent_key(org: OrgId, agent: AgentId) -> culvert_tunnel::AgentKey {
        live::key(org, agent)
    }
}

/// One agent speaks for a cluster: the one that enrolled last.
async fn replace_others(
    tx: &OrgTx,
    cluster: &Cluster,
    agent: AgentId,
    now: Time,
) -> Result<Vec<AgentId>, StoreError> {
    let replaced = tx.revoke_agents_but(cluster.id, agent, now).await?;
    for old in &replaced {
        tx.audit(Act::AgentRevoked, old, format!("replaced by {agent}"), now).await?;
    }
    Ok(replaced)
}

pub(super) fn new_certificate(issued: &Issued, generation: u64) -> NewCertificate {
    NewCertificate {
        serial: issued.serial.to_string(),
        generation,
        leaf: issued.certificate.to_vec(),
        not_before: issued.not_before,
        not_after: issued.not_after,
    }
}

pub(super) fn check_clock(clock_ms: i64, now: Time) -> Result<(), TurnedAway> {
    let skew = clock_skew_ms(clock_ms, now);
    if clock_is_fine(skew) {
        return Ok(());
    }
    let minutes = skew.unsigned_abs() / 60_000;
    let direction = if skew > 0 { "ahead" } else { "behind" };
    Err(TurnedAway::new(Cause::ClockSkew, format!("{minutes} minutes {direction}")))
}

pub(super) fn check_lock(cluster: &Cluster) -> Result<(), TurnedAway> {
    match &cluster.lock {
        Some(lock) => Err(TurnedAway::new(Cause::Locked, lock.message.clone())),
        None => Ok(()),
    }
}

fn explained(cause: Cause, token: &JoinToken) -> TurnedAway {
    let at = |moment: Time| {
        let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
        moment.format(&format).unwrap_or_default()
    };
    let detail = match (cause, &token.used) {
        (Cause::TokenUsed, Some(used)) => format!("at {} from {}", at(used.at), used.from),
        (Cause::TokenExpired, _) => format!("at {}", at(token.expires_at)),
        (Cause::TokenWrongNetwork, _) => {
            token.network.map(|network| format!("it is for {network}")).unwrap_or_default()
        }
        _ => String::new(),
    };
    TurnedAway::new(cause, detail)
}

/// The light that a refusal puts out.
fn stage_of(cause: Cause) -> Stage {
    match cause {
        Cause::CsrInvalid | Cause::Internal | Cause::Revoked => Stage::Identity,
        _ => Stage::Token,
    }
}
