//! Lines of the audit, written in the transaction of what they tell.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::convert::{moment, ms, signed, unsigned};
use super::entity::{audit_event, organisation};
use super::{Org, OrgTx, StoreError};
use crate::domain::{Act, AuditEvent, EventId, Time};

impl OrgTx {
    /// Writes down that the caller did `act` to `target`.
    pub async fn audit(
        &self,
        act: Act,
        target: impl std::fmt::Display,
        detail: impl Into<String>,
        now: Time,
    ) -> Result<(), StoreError> {
        let sequence = self.next_sequence().await?;
        let actor = self.caller.actor();
        let credential = self.caller.credential();
        let event = audit_event::ActiveModel {
            org_id: Set(self.org),
            sequence: Set(sequence),
            id: Set(EventId::generate().uuid()),
            at: Set(ms(now)),
            actor_kind: Set(actor.kind().to_owned()),
            actor_id: Set(actor.id()),
            actor_name: Set(actor.name()),
            credential: Set(format!("{}:{}", credential.kind.as_str(), credential.id)),
            request_id: Set(self.caller.request().map(|id| id.to_string())),
            act: Set(act.as_str().to_owned()),
            target: Set(target.to_string()),
            detail: Set(detail.into()),
        };
        event.insert(&self.conn).await?;
        Ok(())
    }

    /// Counts the organisation's sequence up; the row stays locked until the end of
    /// the transaction, so numbers follow each other without gaps.
    async fn next_sequence(&self) -> Result<i64, StoreError> {
        organisation::Entity::update_many()
            .col_expr(
                organisation::Column::AuditSequence,
                Expr::col(organisation::Column::AuditSequence).add(1),
            )
            .filter(organisation::Column::Id.eq(self.org))
            .exec(&self.conn)
            .await?;
        let row = organisation::Entity::find_by_id(self.org).one(&self.conn).await?;
        row.map(|r| r.audit_sequence).ok_or(StoreError::Corrupt("organisation"))
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// The latest events, newest first, at most `limit`.
    pub async fn audit_events(&self, limit: u64) -> Result<Vec<AuditEvent>, StoreError> {
        let rows = audit_event::Entity::find()
            .filter(audit_event::Column::OrgId.eq(self.org))
            .order_by_desc(audit_event::Column::Sequence)
            .limit(limit)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(event).collect()
    }

    /// How many events there are above `sequence`.
    pub async fn audit_count_above(&self, sequence: u64) -> Result<u64, StoreError> {
        use sea_orm::PaginatorTrait;
        let query = audit_event::Entity::find()
            .filter(audit_event::Column::OrgId.eq(self.org))
            .filter(audit_event::Column::Sequence.gt(signed(sequence)));
        Ok(query.count(&self.conn).await?)
    }
}

fn event(row: audit_event::Model) -> Result<AuditEvent, StoreError> {
    Ok(AuditEvent {
        sequence: unsigned(row.sequence)?,
        id: row.id.into(),
        at: moment(row.at)?,
        actor: (row.actor_kind, row.actor_id, row.actor_name),
        act: row.act,
        target: row.target,
        detail: row.detail,
    })
}
