//! Attempts to enrol: the latest few of each cluster.

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::convert::{from_json, json, moment, ms, optional_text, text};
use super::entity::attempt;
use super::{Org, OrgTx, StoreError};
use crate::domain::attempt::KEPT;
use crate::domain::{Attempt, AttemptId, ClusterId, Outcome, Stage, Time};

impl<C: ConnectionTrait> Org<C> {
    /// The attempts of a cluster, newest first.
    pub async fn attempts(&self, of: ClusterId) -> Result<Vec<Attempt>, StoreError> {
        let rows = attempt::Entity::find()
            .filter(attempt::Column::OrgId.eq(self.org))
            .filter(attempt::Column::ClusterId.eq(of.uuid()))
            .order_by_desc(attempt::Column::Id)
            .limit(KEPT)
            .all(&self.conn)
            .await?;
        rows.into_iter().map(record).collect()
    }

    /// One attempt.
    pub async fn attempt(&self, id: AttemptId) -> Result<Option<Attempt>, StoreError> {
        let query = attempt::Entity::find_by_id(id.uuid()).filter(attempt::Column::OrgId.eq(self.org));
        query.one(&self.conn).await?.map(record).transpose()
    }
}

impl OrgTx {
    /// Writes an attempt as it now is, and forgets the oldest of its cluster.
    pub async fn put_attempt(&self, attempt: &Attempt) -> Result<(), StoreError> {
        self.hold_cluster(attempt.cluster).await?;
        let row = attempt::ActiveModel {
            id: Set(attempt.id.uuid()),
            org_id: Set(self.org),
            cluster_id: Set(attempt.cluster.uuid()),
            at: Set(ms(attempt.at)),
            source: Set(attempt.source.to_string()),
            stage: Set(attempt.stage.as_str().to_owned()),
            reached: Set(json(&reached(attempt))?),
            outcome: Set(attempt.outcome.as_str().to_owned()),
            cause: Set(attempt.cause.map(|c| c.code().to_owned())),
            detail: Set(attempt.detail.clone()),
            agent_version: Set(attempt.agent_version.clone()),
        };
        let mut conflict = OnConflict::column(attempt::Column::Id);
        conflict.update_columns([
            attempt::Column::Stage,
            attempt::Column::Reached,
            attempt::Column::Outcome,
            attempt::Column::Cause,
            attempt::Column::Detail,
            attempt::Column::AgentVersion,
        ]);
        attempt::Entity::insert(row).on_conflict(conflict).exec_without_returning(&self.conn).await?;
        self.forget_old_attempts(attempt.cluster).await
    }

    async fn forget_old_attempts(&self, of: ClusterId) -> Result<(), StoreError> {
        let oldest_kept = attempt::Entity::find()
            .filter(attempt::Column::OrgId.eq(self.org))
            .filter(attempt::Column::ClusterId.eq(of.uuid()))
            .order_by_desc(attempt::Column::Id)
            .offset(KEPT - 1)
            .limit(1)
            .one(&self.conn)
            .await?;
        if let Some(oldest) = oldest_kept {
            attempt::Entity::delete_many()
                .filter(attempt::Column::OrgId.eq(self.org))
                .filter(attempt::Column::ClusterId.eq(of.uuid()))
                .filter(attempt::Column::Id.lt(oldest.id))
                .exec(&self.conn)
                .await?;
        }
        Ok(())
    }

    /// Ends attempts that began before `then` and still count as running: their
    /// connection is gone. Gives how many.
    pub async fn give_up_attempts(&self, then: Time, detail: &str) -> Result<u64, StoreError> {
        let changed = attempt::Entity::update_many()
            .col_expr(attempt::Column::Outcome, Expr::value(Outcome::Failed.as_str()))
            .col_expr(attempt::Column::Detail, Expr::value(detail))
            .filter(attempt::Column::OrgId.eq(self.org))
            .filter(attempt::Column::Outcome.eq(Outcome::Running.as_str()))
            .filter(attempt::Column::At.lt(ms(then)))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected)
    }
}

fn reached(attempt: &Attempt) -> Vec<(Stage, i64)> {
    attempt.reached.iter().map(|(stage, at)| (*stage, ms(*at))).collect()
}

fn record(row: attempt::Model) -> Result<Attempt, StoreError> {
    let reached: Vec<(Stage, i64)> = from_json(&row.reached, "stages")?;
    Ok(Attempt {
        id: row.id.into(),
        cluster: row.cluster_id.into(),
        at: moment(row.at)?,
        source: text(&row.source, "address")?,
        stage: Stage::from_word(&row.stage).ok_or(StoreError::Corrupt("stage"))?,
        reached: reached
            .into_iter()
            .map(|(stage, at)| Ok((stage, moment(at)?)))
            .collect::<Result<_, StoreError>>()?,
        outcome: Outcome::from_word(&row.outcome).ok_or(StoreError::Corrupt("outcome"))?,
        cause: optional_text(row.cause.as_deref(), "cause")?,
        detail: row.detail,
        agent_version: row.agent_version,
    })
}
