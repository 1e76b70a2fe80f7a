//! Replicas, the sessions they hold, and what they tell one another.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::convert::{moment, ms, signed, text, unsigned};
use super::entity::{agent, agent_session, replica, replica_news};
use super::{OrgTx, Store, StoreError};
use crate::domain::{AgentId, AgentSession, OrgId, Replica, ReplicaNews};

/// News read at once.
const READ: u64 = 1000;
/// News that a replica keeps for others who are slow.
const KEPT: i64 = 10_000;
/// A told epoch above this is not believed, so that epochs never run out.
const TOLD_MAX: i64 = i64::MAX >> 1;

/// A session that is about to begin at this replica.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The session; its epoch is the highest that the agent knows of.
    pub session: &'a AgentSession,
    /// Whether the replica is one of several, so that the session is to be found.
    pub listed: bool,
}

impl OrgTx {
    /// The session of an agent, whoever holds it.
    pub async fn agent_session(&self, id: AgentId) -> Result<Option<AgentSession>, StoreError> {
        let query =
            agent_session::Entity::find_by_id(id.uuid()).filter(agent_session::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(session).transpose()
    }

    /// Gives an agent's new session its epoch, above all that were given before, and
    /// makes this replica its holder.
    pub async fn claim_session(&self, claim: Claim<'_>) -> Result<u64, StoreError> {
        let AgentSession { agent: id, epoch: told, .. } = claim.session;
        let epoch = self.next_epoch(*id, Ord::min(signed(*told), TOLD_MAX)).await?;
        if claim.listed {
            let mut conflict = OnConflict::column(agent_session::Column::AgentId);
            conflict.update_columns([
                agent_session::Column::ReplicaId,
                agent_session::Column::Epoch,
                agent_session::Column::Instance,
                agent_session::Column::Source,
                agent_session::Column::ConnectedAt,
            ]);
            let row = row_of(&AgentSession { epoch: unsigned(epoch)?, ..claim.session.clone() });
            agent_session::Entity::insert(row)
                .on_conflict(conflict)
                .exec_without_returning(&self.conn)
                .await?;
        }
        unsigned(epoch)
    }

    /// The write locks the row, so no two sessions get the same.
    async fn next_epoch(&self, id: AgentId, told: i64) -> Result<i64, StoreError> {
        let mine = || agent::Column::OrgId.eq(self.org).and(agent::Column::Id.eq(id.uuid()));
        let higher =
            Expr::case(agent::Column::LastEpoch.lt(told), told).finally(Expr::col(agent::Column::LastEpoch));
        agent::Entity::update_many()
            .col_expr(agent::Column::LastEpoch, Expr::expr(higher).add(1))
            .filter(mine())
            .exec(&self.conn)
            .await?;
        let read = agent::Entity::find().select_only().column(agent::Column::LastEpoch).filter(mine());
        read.into_tuple().one(&self.conn).await?.ok_or(StoreError::Corrupt("agent"))
    }
}

impl Store {
    /// Writes that a replica lives.
    pub async fn replica_beats(&self, beating: &Replica) -> Result<(), StoreError> {
        let row = replica::ActiveModel {
            id: Set(beating.id),
            address: Set(beating.address.clone()),
            beat: Set(signed(beating.beat)),
        };
        let mut conflict = OnConflict::column(replica::Column::Id);
        conflict.update_columns([replica::Column::Address, replica::Column::Beat]);
        replica::Entity::insert(row).on_conflict(conflict).exec_without_returning(&self.write).await?;
        Ok(())
    }

    /// Every replica but `me`.
    pub async fn other_replicas(&self, me: Uuid) -> Result<Vec<Replica>, StoreError> {
        let rows = replica::Entity::find().filter(replica::Column::Id.ne(me)).all(&self.read).await?;
        let replica =
            |row: replica::Model| Ok(Replica { id: row.id, address: row.address, beat: unsigned(row.beat)? });
        rows.into_iter().map(replica).collect()
    }

    /// Deletes a replica, its sessions and its news.
    pub async fn forget_replica(&self, id: Uuid) -> Result<(), StoreError> {
        replica::Entity::delete_by_id(id).exec(&self.write).await?;
        Ok(())
    }

    /// Every session of other replicas than `me`.
    pub async fn sessions_elsewhere(&self, me: Uuid) -> Result<Vec<AgentSession>, StoreError> {
        self.sessions_where(agent_session::Column::ReplicaId.ne(me).into()).await
    }

    /// Every session of a replica.
    pub async fn sessions_of_replica(&self, id: Uuid) -> Result<Vec<AgentSession>, StoreError> {
        self.sessions_where(agent_session::Column::ReplicaId.eq(id).into()).await
    }

    /// The sessions of these agents, whoever holds them.
    pub async fn sessions_of_agents(&self, agents: &[AgentId]) -> Result<Vec<AgentSession>, StoreError> {
        let ids = agents.iter().map(|id| id.uuid());
        self.sessions_where(Condition::all().add(agent_session::Column::AgentId.is_in(ids))).await
    }

    async fn sessions_where(&self, which: Condition) -> Result<Vec<AgentSession>, StoreError> {
        let rows = agent_session::Entity::find().filter(which).all(&self.read).await?;
        rows.into_iter().map(session).collect()
    }

    /// A session of `replica` has ended; one that began since is left alone.
    pub async fn session_ended(&self, replica: Uuid, agent: AgentId, epoch: u64) -> Result<(), StoreError> {
        agent_session::Entity::delete_many()
            .filter(agent_session::Column::AgentId.eq(agent.uuid()))
            .filter(agent_session::Column::ReplicaId.eq(replica))
            .filter(agent_session::Column::Epoch.lte(signed(epoch)))
            .exec(&self.write)
            .await?;
        Ok(())
    }

    /// Lists a session again whose row was lost; one that is listed is left alone.
    pub async fn relist_session(&self, lost: &AgentSession) -> Result<(), StoreError> {
        let mut conflict = OnConflict::column(agent_session::Column::AgentId);
        conflict.do_nothing();
        let insert = agent_session::Entity::insert(row_of(lost)).on_conflict(conflict);
        insert.exec_without_returning(&self.write).await?;
        Ok(())
    }

    /// Writes what a replica tells, numbered from `first` on, and drops what is old.
    pub async fn tell_replicas(&self, me: Uuid, first: u64, news: &[ReplicaNews]) -> Result<(), StoreError> {
        let row = |(at, news): (usize, &ReplicaNews)| {
            let (kind, org, subject) = in_words(*news);
            replica_news::ActiveModel {
                replica_id: Set(me),
                sequence: Set(signed(first.saturating_add(at as u64))),
                kind: Set(kind.to_owned()),
                org_id: Set(org),
                subject: Set(subject),
            }
        };
        let rows = news.iter().enumerate().map(row);
        replica_news::Entity::insert_many(rows).exec_without_returning(&self.write).await?;
        replica_news::Entity::delete_many()
            .filter(replica_news::Column::ReplicaId.eq(me))
            .filter(replica_news::Column::Sequence.lt(signed(first).saturating_sub(KEPT)))
            .exec(&self.write)
            .await?;
        Ok(())
    }

    /// What a replica told after `seen`, oldest first, and the number of the last.
    pub async fn told_by(&self, replica: Uuid, seen: u64) -> Result<(Vec<ReplicaNews>, u64), StoreError> {
        let rows = replica_news::Entity::find()
            .filter(replica_news::Column::ReplicaId.eq(replica))
            .filter(replica_news::Column::Sequence.gt(signed(seen)))
            .order_by_asc(replica_news::Column::Sequence)
            .limit(READ)
            .all(&self.read)
            .await?;
        let last = rows.last().map_or(Ok(seen), |row| unsigned(row.sequence))?;
        Ok((rows.into_iter().filter_map(read).collect(), last))
    }

    /// The number of the last that a replica told.
    pub async fn last_told_by(&self, replica: Uuid) -> Result<u64, StoreError> {
        let newest = replica_news::Entity::find()
            .filter(replica_news::Column::ReplicaId.eq(replica))
            .order_by_desc(replica_news::Column::Sequence)
            .one(&self.read)
            .await?;
        newest.map_or(Ok(0), |row| unsigned(row.sequence))
    }
}

fn in_words(news: ReplicaNews) -> (&'static str, Uuid, Uuid) {
    match news {
        ReplicaNews::Rights => ("rights", Uuid::nil(), Uuid::nil()),
        ReplicaNews::Changes(org) => ("changes", org.uuid(), Uuid::nil()),
        ReplicaNews::Session(org, agent) => ("session", org.uuid(), agent.uuid()),
    }
}

/// A kind that a newer replica tells and this one does not know is passed over.
fn read(row: replica_news::Model) -> Option<ReplicaNews> {
    match row.kind.as_str() {
        "rights" => Some(ReplicaNews::Rights),
        "changes" => Some(ReplicaNews::Changes(OrgId::from(row.org_id))),
        "session" => Some(ReplicaNews::Session(row.org_id.into(), row.subject.into())),
        _ => None,
    }
}

fn row_of(session: &AgentSession) -> agent_session::ActiveModel {
    agent_session::ActiveModel {
        agent_id: Set(session.agent.uuid()),
        org_id: Set(session.org.uuid()),
        replica_id: Set(session.replica),
        epoch: Set(signed(session.epoch)),
        instance: Set(data_encoding::HEXLOWER.encode(&session.instance)),
        source: Set(session.source.to_string()),
        connected_at: Set(ms(session.connected_at)),
    }
}

fn session(row: agent_session::Model) -> Result<AgentSession, StoreError> {
    let instance = data_encoding::HEXLOWER.decode(row.instance.as_bytes()).ok();
    Ok(AgentSession {
        org: row.org_id.into(),
        agent: row.agent_id.into(),
        replica: row.replica_id,
        epoch: unsigned(row.epoch)?,
        instance: instance.and_then(|i| i.try_into().ok()).ok_or(StoreError::Corrupt("instance"))?,
        source: text(&row.source, "address")?,
        connected_at: moment(row.connected_at)?,
    })
}
