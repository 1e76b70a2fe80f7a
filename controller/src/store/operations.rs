//! Operations: intent that outlives the process that took it on.
//!
//! A driver claims an operation for a while ([`OrgTx::claim_operation`]) and writes it back
//! with the epoch it got. Whoever lost the claim has an old epoch, and its write changes
//! nothing.

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::convert::{from_json, json, moment, ms, optional_moment, signed, text, unsigned};
use super::entity::operation;
use super::{Org, OrgTx, Store, StoreError};
use crate::domain::operation::Expected;
use crate::domain::{
    ClusterId, Operation, OperationId, OperationKind, OperationState, OrgId, Subject, SubjectKind, Time,
};

/// Which operations of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct OperationRows {
    /// Only those about the thing with this id.
    pub subject: Option<String>,
    /// Only those in this state.
    pub state: Option<OperationState>,
    /// Only those of this kind.
    pub kind: Option<OperationKind>,
}

/// An operation that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueOperation {
    /// Whose it is.
    pub org: OrgId,
    /// Which.
    pub id: OperationId,
    /// Where it acts.
    pub cluster: Option<ClusterId>,
}

fn active() -> Condition {
    let states = OperationState::ALL.into_iter().filter(|s| !s.is_over()).map(OperationState::as_str);
    Condition::all().add(operation::Column::State.is_in(states))
}

impl Store {
    /// Operations of all organisations that are due and that nobody drives, the longest
    /// waiting first; without those in the clusters `busy`.
    pub async fn due_operations(
        &self,
        now: Time,
        busy: &[ClusterId],
        limit: u64,
    ) -> Result<Vec<DueOperation>, StoreError> {
        use operation::Column as C;
        let free = Condition::any().add(C::LeaseUntil.is_null()).add(C::LeaseUntil.lte(ms(now)));
        let busy: Vec<Uuid> = busy.iter().map(|id| id.uuid()).collect();
        let elsewhere = Condition::any().add(C::ClusterId.is_null()).add(C::ClusterId.is_not_in(busy));
        let rows: Vec<(Uuid, Uuid, Option<Uuid>)> = operation::Entity::find()
            .filter(active())
            .filter(C::DueAt.lte(ms(now)))
            .filter(free)
            .filter(elsewhere)
            .order_by_asc(C::DueAt)
            .limit(limit)
            .select_only()
            .columns([C::OrgId, C::Id, C::ClusterId])
            .into_tuple()
            .all(&self.read)
            .await?;
        let due = |(org, id, cluster): (Uuid, Uuid, Option<Uuid>)| DueOperation {
            org: org.into(),
            id: id.into(),
            cluster: cluster.map(ClusterId::from),
        };
        Ok(rows.into_iter().map(due).collect())
    }
}

impl<C: ConnectionTrait> Org<C> {
    /// One operation.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let query = operation::Entity::find_by_id(id.uuid()).filter(operation::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Operations, newest first, before the id `before`, at most `limit`.
    pub async fn operations(
        &self,
        wanted: &OperationRows,
        before: Option<OperationId>,
        limit: u64,
    ) -> Result<Vec<Operation>, StoreError> {
        use operation::Column as C;
        let mut query = operation::Entity::find().filter(C::OrgId.eq(self.org));
        if let Some(subject) = &wanted.subject {
            query = query.filter(C::SubjectId.eq(subject.as_str()));
        }
        if let Some(state) = wanted.state {
            query = query.filter(C::State.eq(state.as_str()));
        }
        if let Some(kind) = wanted.kind {
            query = query.filter(C::Kind.eq(kind.as_str()));
        }
        if let Some(before) = before {
            query = query.filter(C::Id.lt(before.uuid()));
        }
        let query = query.order_by_desc(C::Id).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// Operations about these things that are not over, oldest first.
    pub async fn active_operations_of(&self, subjects: &[String]) -> Result<Vec<Operation>, StoreError> {
        use operation::Column as C;
        let query = operation::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::SubjectId.is_in(subjects.iter().map(String::as_str)))
            .filter(active())
            .order_by_asc(C::Id);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// Whether an operation that is not over is about a thing of this kind and name in a cluster.
    pub async fn is_under_way(
        &self,
        kind: SubjectKind,
        name: &str,
        cluster: ClusterId,
    ) -> Result<bool, StoreError> {
        use operation::Column as C;
        use sea_orm::PaginatorTrait as _;
        let query = operation::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::SubjectKind.eq(kind.as_str()))
            .filter(C::SubjectName.eq(name))
            .filter(C::ClusterId.eq(cluster.uuid()))
            .filter(active());
        Ok(query.count(&self.conn).await? > 0)
    }

    /// Whether an operation about this thing, other than `except`, is being driven now.
    pub async fn others_at_work(
        &self,
        subject: &str,
        except: OperationId,
        now: Time,
    ) -> Result<bool, StoreError> {
        use operation::Column as C;
        use sea_orm::PaginatorTrait as _;
        let query = operation::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::SubjectId.eq(subject))
            .filter(C::Id.ne(except.uuid()))
            .filter(C::LeaseUntil.gt(ms(now)));
        Ok(query.count(&self.conn).await? > 0)
    }

    /// How many seconds the latest operations of a kind took that ended well, at most 20.
    pub async fn durations_of(&self, kind: OperationKind) -> Result<Vec<u64>, StoreError> {
        use operation::Column as C;
        let rows: Vec<(Option<i64>, Option<i64>)> = operation::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::Kind.eq(kind.as_str()))
            .filter(C::State.eq(OperationState::Succeeded.as_str()))
            .order_by_desc(C::Id)
            .limit(20)
            .select_only()
            .columns([C::StartedAt, C::EndedAt])
            .into_tuple()
            .all(&self.conn)
            .await?;
        let took = |(from, until): (Option<i64>, Option<i64>)| {
            from.zip(until).and_then(|(from, until)| u64::try_from((until - from) / 1000).ok())
        };
        Ok(rows.into_iter().filter_map(took).collect())
    }
}

impl OrgTx {
    /// Writes a new operation.
    pub async fn add_operation(&self, made: &Operation) -> Result<(), StoreError> {
        row(self.org, made)?.insert(&self.conn).await?;
        Ok(())
    }

    /// Holds an operation's row until the end of the transaction.
    pub async fn hold_operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let query = operation::Entity::find_by_id(id.uuid())
            .filter(operation::Column::OrgId.eq(self.org))
            .lock(LockType::NoKeyUpdate);
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Claims an operation until `until`, if it is due and nobody has it; gives it with the
    /// epoch of this claim.
    pub async fn claim_operation(
        &self,
        id: OperationId,
        now: Time,
        until: Time,
    ) -> Result<Option<Operation>, StoreError> {
        use operation::Column as C;
        let free = Condition::any().add(C::LeaseUntil.is_null()).add(C::LeaseUntil.lte(ms(now)));
        let claimed = operation::Entity::update_many()
            .col_expr(C::Epoch, Expr::col(C::Epoch).add(1))
            .col_expr(C::LeaseUntil, Expr::value(ms(until)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(id.uuid()))
            .filter(active())
            .filter(C::DueAt.lte(ms(now)))
            .filter(free)
            .exec(&self.conn)
            .await?;
        if claimed.rows_affected == 1 { self.operation(id).await } else { Ok(None) }
    }

    /// Writes an operation back whose stored epoch is still its own; with `keep_until` the
    /// claim goes on until then, else it ends. `false` when somebody else has it.
    pub async fn put_operation(
        &self,
        operation: &Operation,
        keep_until: Option<Time>,
    ) -> Result<bool, StoreError> {
        use operation::Column as C;
        let lease = keep_until.map(ms);
        let changed = operation::Entity::update_many()
            .col_expr(C::State, Expr::value(operation.state.as_str()))
            .col_expr(C::Steps, Expr::value(json(&operation.steps)?))
            .col_expr(C::Intent, Expr::value(json(&operation.intent)?))
            .col_expr(C::Progress, Expr::value(operation.progress.as_ref().map(json).transpose()?))
            .col_expr(C::Failure, Expr::value(operation.failure.as_ref().map(json).transpose()?))
            .col_expr(C::StartedAt, Expr::value(operation.started_at.map(ms)))
            .col_expr(C::EndedAt, Expr::value(operation.ended_at.map(ms)))
            .col_expr(C::Deadline, Expr::value(ms(operation.deadline)))
            .col_expr(C::DueAt, Expr::value(ms(operation.due_at)))
            .col_expr(C::LeaseUntil, Expr::value(lease))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(operation.id.uuid()))
            .filter(C::Epoch.eq(signed(operation.epoch)))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Writes an operation that [`Self::hold_operation`] gave, whoever drives it: their next
    /// write is not heard. Their claim stays until they notice, so that nobody acts beside
    /// them.
    pub async fn seize_operation(&self, operation: &mut Operation) -> Result<(), StoreError> {
        use operation::Column as C;
        let lease: Option<Option<i64>> = operation::Entity::find_by_id(operation.id.uuid())
            .select_only()
            .column(C::LeaseUntil)
            .into_tuple()
            .one(&self.conn)
            .await?;
        let lease = optional_moment(lease.flatten())?;
        self.put_operation(operation, lease).await?;
        operation::Entity::update_many()
            .col_expr(C::Epoch, Expr::col(C::Epoch).add(1))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(operation.id.uuid()))
            .exec(&self.conn)
            .await?;
        operation.epoch = operation.epoch.saturating_add(1);
        Ok(())
    }

    /// Ends the claim of a driver whose operation was seized meanwhile: what it had begun is
    /// over. A claim that somebody else has made since is left alone.
    pub async fn leave_operation(&self, operation: &Operation) -> Result<(), StoreError> {
        use operation::Column as C;
        operation::Entity::update_many()
            .col_expr(C::LeaseUntil, Expr::value(Option::<i64>::None))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(operation.id.uuid()))
            .filter(C::Epoch.eq(signed(operation.epoch.saturating_add(1))))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// What waits for a thing is looked at now.
    pub async fn hurry_operations_on(&self, subject: &str, now: Time) -> Result<(), StoreError> {
        use operation::Column as C;
        operation::Entity::update_many()
            .col_expr(C::DueAt, Expr::value(ms(now)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::SubjectId.eq(subject))
            .filter(active())
            .filter(C::DueAt.gt(ms(now)))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// What waits in a cluster is looked at now.
    pub async fn hurry_operations(&self, cluster: ClusterId, now: Time) -> Result<u64, StoreError> {
        use operation::Column as C;
        let changed = operation::Entity::update_many()
            .col_expr(C::DueAt, Expr::value(ms(now)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::ClusterId.eq(cluster.uuid()))
            .filter(active())
            .filter(C::DueAt.gt(ms(now)))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected)
    }
}

fn row(org: Uuid, made: &Operation) -> Result<operation::ActiveModel, StoreError> {
    Ok(operation::ActiveModel {
        id: Set(made.id.uuid()),
        org_id: Set(org),
        cluster_id: Set(made.cluster.map(ClusterId::uuid)),
        kind: Set(made.kind.as_str().to_owned()),
        subject_kind: Set(made.subject.kind.as_str().to_owned()),
        subject_id: Set(made.subject.id.clone()),
        subject_name: Set(made.subject.name.clone()),
        state: Set(made.state.as_str().to_owned()),
        steps: Set(json(&made.steps)?),
        intent: Set(json(&made.intent)?),
        expected_low: Set(signed(made.expected.low)),
        expected_high: Set(signed(made.expected.high)),
        progress: Set(made.progress.as_ref().map(json).transpose()?),
        failure: Set(made.failure.as_ref().map(json).transpose()?),
        created_by: Set(made.created_by.clone()),
        created_at: Set(ms(made.created_at)),
        started_at: Set(made.started_at.map(ms)),
        ended_at: Set(made.ended_at.map(ms)),
        deadline: Set(ms(made.deadline)),
        due_at: Set(ms(made.due_at)),
        epoch: Set(signed(made.epoch)),
        lease_until: Set(None),
    })
}

fn record(row: operation::Model) -> Result<Operation, StoreError> {
    let subject = Subject {
        kind: text::<SubjectKind>(&row.subject_kind, "kind of a subject")?,
        id: row.subject_id,
        name: row.subject_name,
    };
    Ok(Operation {
        id: row.id.into(),
        kind: text(&row.kind, "kind of an operation")?,
        subject,
        cluster: row.cluster_id.map(ClusterId::from),
        state: text(&row.state, "state of an operation")?,
        steps: from_json(&row.steps, "steps")?,
        intent: from_json(&row.intent, "intent")?,
        expected: Expected { low: unsigned(row.expected_low)?, high: unsigned(row.expected_high)? },
        progress: row.progress.map(|progress| from_json(&progress, "progress")).transpose()?,
        failure: row.failure.map(|failure| from_json(&failure, "failure")).transpose()?,
        created_by: row.created_by,
        created_at: moment(row.created_at)?,
        started_at: optional_moment(row.started_at)?,
        ended_at: optional_moment(row.ended_at)?,
        deadline: moment(row.deadline)?,
        due_at: moment(row.due_at)?,
        epoch: unsigned(row.epoch)?,
    })
}
