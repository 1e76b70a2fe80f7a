//! Agents and their certificates.

use std::net::IpAddr;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::convert::{from_json, json, moment, ms, optional_moment, optional_text, signed, unsigned};
use super::entity::{agent, certificate};
use super::{Org, OrgTx, StoreError};
use crate::domain::{Agent, AgentId, ClusterId, Facts, Lock, PageSize, Refused, Time};

/// A certificate to be written down.
#[derive(Debug, Clone)]
pub struct NewCertificate {
    /// Its serial number.
    pub serial: String,
    /// Its counter.
    pub generation: u64,
    /// The certificate, DER.
    pub leaf: Vec<u8>,
    /// Start of its validity.
    pub not_before: Time,
    /// End of its validity.
    pub not_after: Time,
}

/// An agent to be written down, with its first certificate.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// The agent's id.
    pub agent: AgentId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The version it told.
    pub version: String,
    /// Where it came from.
    pub source: IpAddr,
    /// When.
    pub at: Time,
    /// Its first certificate; the counter is 1.
    pub certificate: NewCertificate,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct StoredCertificate {
    /// Whose it is.
    pub agent: AgentId,
    /// Its counter.
    pub generation: u64,
    /// The certificate, DER.
    pub leaf: Vec<u8>,
    /// Start of its validity.
    pub not_before: Time,
    /// End of its validity.
    pub not_after: Time,
}

/// What is written down when an agent was let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The agent.
    pub agent: AgentId,
    /// The version it told.
    pub version: String,
    /// Where it came from.
    pub source: IpAddr,
    /// Counter of the certificate it showed.
    pub generation: u64,
    /// When.
    pub at: Time,
}

impl<C: ConnectionTrait> Org<C> {
    /// An agent.
    pub async fn agent(&self, id: AgentId) -> Result<Option<Agent>, StoreError> {
        let query = agent::Entity::find_by_id(id.uuid()).filter(agent::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// The present agent of each of `clusters`: the newest that is not revoked.
    pub async fn agents_of(&self, clusters: &[ClusterId]) -> Result<Vec<Agent>, StoreError> {
        let ids = clusters.iter().map(|id| id.uuid());
        let rows = agent::Entity::find()
            .filter(agent::Column::OrgId.eq(self.org))
            .filter(agent::Column::ClusterId.is_in(ids))
            .filter(agent::Column::RevokedAt.is_null())
            .order_by_asc(agent::Column::Id)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// The present agent of a cluster.
    pub async fn agent_of(&self, cluster: ClusterId) -> Result<Option<Agent>, StoreError> {
        Ok(self.agents_of(&[cluster]).await?.pop())
    }

    /// Agents from the newest, after `after`; one more than `size` when the list
    /// goes on.
    pub async fn agents(&self, after: Option<AgentId>, size: PageSize) -> Result<Vec<Agent>, StoreError> {
        let mut query = agent::Entity::find().filter(agent::Column::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(agent::Column::Id.lt(after.uuid()));
        }
        let query = query.order_by_desc(agent::Column::Id).limit(size.get() as u64 + 1);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// A certificate by its serial number.
    pub async fn certificate(&self, serial: &str) -> Result<Option<StoredCertificate>, StoreError> {
        let query = certificate::Entity::find_by_id(serial.to_owned())
            .filter(certificate::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(issued).transpose()
    }

    /// The certificate of an agent with this counter.
    pub async fn certificate_of(
        &self,
        agent: AgentId,
        generation: u64,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        let query = certificate::Entity::find()
            .filter(certificate::Column::OrgId.eq(self.org))
            .filter(certificate::Column::AgentId.eq(agent.uuid()))
            .filter(certificate::Column::Generation.eq(signed(generation)));
        query.one(&self.conn).await?.map(issued).transpose()
    }
}

impl OrgTx {
    /// Writes a new agent and its first certificate.
    pub async fn add_agent(&self, new: &NewEnrolment) -> Result<(), StoreError> {
        let row = agent::ActiveModel {
            id: Set(new.agent.uuid()),
            org_id: Set(self.org),
            cluster_id: Set(new.cluster.uuid()),
            version: Set(new.version.clone()),
            enrolled_at: Set(ms(new.at)),
            revoked_at: Set(None),
            lock_message: Set(None),
            locked_at: Set(None),
            generation: Set(signed(new.certificate.generation)),
            seen_generation: Set(signed(new.certificate.generation)),
            certificate_not_after: Set(ms(new.certificate.not_after)),
            last_seen_at: Set(None),
            last_source: Set(Some(new.source.to_string())),
            last_epoch: Set(0),
            facts: Set(None),
            last_refusal: Set(None),
        };
        row.insert(&self.conn).await?;
        self.add_certificate(new.agent, &new.certificate).await
    }

    /// Writes a certificate and makes it the agent's newest. `false` when the agent
    /// may get none, or another certificate came in between.
    pub async fn renew_agent(&self, id: AgentId, new: &NewCertificate) -> Result<bool, StoreError> {
        let changed = self
            .update_agent(id)
            .col_expr(agent::Column::Generation, Expr::value(signed(new.generation)))
            .col_expr(agent::Column::CertificateNotAfter, Expr::value(ms(new.not_after)))
            .filter(agent::Column::Generation.eq(signed(new.generation) - 1))
            .filter(agent::Column::RevokedAt.is_null())
            .filter(agent::Column::LockedAt.is_null())
            .exec(&self.conn)
            .await?;
        if changed.rows_affected == 0 {
            return Ok(false);
        }
        self.add_certificate(id, new).await?;
        Ok(true)
    }

    async fn add_certificate(&self, id: AgentId, new: &NewCertificate) -> Result<(), StoreError> {
        let row = certificate::ActiveModel {
            serial: Set(new.serial.clone()),
            org_id: Set(self.org),
            agent_id: Set(id.uuid()),
            generation: Set(signed(new.generation)),
            leaf: Set(new.leaf.clone()),
            not_before: Set(ms(new.not_before)),
            not_after: Set(ms(new.not_after)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Revokes every live agent of `cluster` but `keep`; gives their ids.
    pub async fn revoke_agents_but(
        &self,
        cluster: ClusterId,
        keep: AgentId,
        now: Time,
    ) -> Result<Vec<AgentId>, StoreError> {
        let mut ids: Vec<_> = self.agents_of(&[cluster]).await?.into_iter().map(|a| a.id).collect();
        ids.retain(|id| *id != keep);
        for id in &ids {
            self.update_agent(*id)
                .col_expr(agent::Column::RevokedAt, Expr::value(ms(now)))
                .exec(&self.conn)
                .await?;
        }
        Ok(ids)
    }

    /// Locks an agent for good. `false` when it was locked before.
    pub async fn lock_agent(&self, id: AgentId, reason: &Lock) -> Result<bool, StoreError> {
        let changed = self
            .update_agent(id)
            .col_expr(agent::Column::LockMessage, Expr::value(reason.message.clone()))
            .col_expr(agent::Column::LockedAt, Expr::value(ms(reason.at)))
            .filter(agent::Column::LockedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Writes down that an agent was let in.
    pub async fn agent_admitted(&self, seen: &Admitted) -> Result<(), StoreError> {
        self.update_agent(seen.agent)
            .col_expr(agent::Column::Version, Expr::value(seen.version.clone()))
            .col_expr(agent::Column::LastSource, Expr::value(seen.source.to_string()))
            .col_expr(agent::Column::LastSeenAt, Expr::value(ms(seen.at)))
            .exec(&self.conn)
            .await?;
        self.update_agent(seen.agent)
            .col_expr(agent::Column::SeenGeneration, Expr::value(signed(seen.generation)))
            .filter(agent::Column::SeenGeneration.lt(signed(seen.generation)))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Writes down the epoch of a session that began; never lowers it.
    pub async fn agent_epoch(&self, id: AgentId, epoch: u64) -> Result<(), StoreError> {
        self.update_agent(id)
            .col_expr(agent::Column::LastEpoch, Expr::value(signed(epoch)))
            .filter(agent::Column::LastEpoch.lt(signed(epoch)))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Writes down when an agent was last here; never goes back.
    pub async fn agent_seen(&self, id: AgentId, at: Time) -> Result<(), StoreError> {
        let earlier = agent::Column::LastSeenAt.is_null().or(agent::Column::LastSeenAt.lt(ms(at)));
        self.update_agent(id)
            .col_expr(agent::Column::LastSeenAt, Expr::value(ms(at)))
            .filter(earlier)
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Writes down what an agent told of its cluster.
    pub async fn agent_facts(&self, id: AgentId, facts: &Facts) -> Result<(), StoreError> {
        self.update_agent(id)
            .col_expr(agent::Column::Facts, Expr::value(json(facts)?))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// Writes down that an agent was turned away.
    pub async fn agent_refused(&self, id: AgentId, refused: &Refused) -> Result<(), StoreError> {
        self.update_agent(id)
            .col_expr(agent::Column::LastRefusal, Expr::value(json(refused)?))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    fn update_agent(&self, id: AgentId) -> sea_orm::UpdateMany<agent::Entity> {
        agent::Entity::update_many()
            .filter(agent::Column::OrgId.eq(self.org))
            .filter(agent::Column::Id.eq(id.uuid()))
    }
}

fn record(row: agent::Model) -> Result<Agent, StoreError> {
    let locked_at = optional_moment(row.locked_at)?;
    let lock_message = row.lock_message.unwrap_or_default();
    Ok(Agent {
        id: row.id.into(),
        cluster: row.cluster_id.into(),
        version: row.version,
        enrolled_at: moment(row.enrolled_at)?,
        revoked_at: optional_moment(row.revoked_at)?,
        locked: locked_at.map(|at| Lock { message: lock_message, at }),
        generation: unsigned(row.generation)?,
        seen_generation: unsigned(row.seen_generation)?,
        certificate_not_after: moment(row.certificate_not_after)?,
        last_seen_at: optional_moment(row.last_seen_at)?,
        last_source: optional_text(row.last_source.as_deref(), "address")?,
        last_epoch: unsigned(row.last_epoch)?,
        facts: row.facts.map(|f| from_json(&f, "facts")).transpose()?,
        last_refusal: row.last_refusal.map(|r| from_json(&r, "refusal")).transpose()?,
    })
}

fn issued(row: certificate::Model) -> Result<StoredCertificate, StoreError> {
    Ok(StoredCertificate {
        agent: row.agent_id.into(),
        generation: unsigned(row.generation)?,
        leaf: row.leaf,
        not_before: moment(row.not_before)?,
        not_after: moment(row.not_after)?,
    })
}
