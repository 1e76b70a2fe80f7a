//! Clusters.

use sea_orm::sea_query::{Expr, LikeExpr, LockType};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::convert::{from_json, json, moment, ms, optional_moment, text};
use super::entity::cluster;
use super::{Org, OrgTx, StoreError};
use crate::domain::{Cluster, ClusterId, ClusterName, ClusterRef, Lock};

impl<C: ConnectionTrait> Org<C> {
    /// A cluster, by id or name.
    pub async fn cluster(&self, which: &ClusterRef) -> Result<Option<Cluster>, StoreError> {
        let query = cluster::Entity::find().filter(cluster::Column::OrgId.eq(self.org));
        let query = match which {
            ClusterRef::Id(id) => query.filter(cluster::Column::Id.eq(id.uuid())),
            ClusterRef::Name(name) => query.filter(cluster::Column::Name.eq(name.as_str())),
        };
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// The clusters with these ids.
    pub async fn clusters_of(&self, ids: &[ClusterId]) -> Result<Vec<Cluster>, StoreError> {
        let query = cluster::Entity::find()
            .filter(cluster::Column::OrgId.eq(self.org))
            .filter(cluster::Column::Id.is_in(ids.iter().map(|id| id.uuid())));
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// Clusters by name, after the name `after`, at most `limit`; with `part`, only
    /// those whose name contains it.
    pub async fn clusters(
        &self,
        after: Option<&ClusterName>,
        part: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Cluster>, StoreError> {
        let mut query = cluster::Entity::find().filter(cluster::Column::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(cluster::Column::Name.gt(after.as_str()));
        }
        if let Some(part) = part {
            query = query.filter(Expr::col(cluster::Column::Name).like(containing(part)));
        }
        let query = query.order_by_asc(cluster::Column::Name).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }
}

impl OrgTx {
    /// Writes a new cluster.
    pub async fn add_cluster(&self, made: &Cluster) -> Result<(), StoreError> {
        let row = cluster::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            name: Set(made.name.to_string()),
            labels: Set(json(&made.labels)?),
            created_at: Set(ms(made.created_at)),
            lock_message: Set(made.lock.as_ref().map(|l| l.message.clone())),
            locked_at: Set(made.lock.as_ref().map(|l| ms(l.at))),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Holds a cluster's row until the end of the transaction. Whoever changes more
    /// than one row below a cluster holds it first, so that nobody waits for somebody
    /// who waits for them.
    pub async fn hold_cluster(&self, id: ClusterId) -> Result<(), StoreError> {
        cluster::Entity::find()
            .filter(cluster::Column::OrgId.eq(self.org))
            .filter(cluster::Column::Id.eq(id.uuid()))
            .lock(LockType::NoKeyUpdate)
            .one(&self.conn)
            .await?;
        Ok(())
    }

    /// Deletes a cluster and all that belongs to it. `false` when there was none.
    pub async fn delete_cluster(&self, id: ClusterId) -> Result<bool, StoreError> {
        let deleted = cluster::Entity::delete_many()
            .filter(cluster::Column::OrgId.eq(self.org))
            .filter(cluster::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(deleted.rows_affected == 1)
    }

    /// Locks or unlocks a cluster. `false` when there is none.
    pub async fn set_cluster_lock(&self, id: ClusterId, lock: Option<&Lock>) -> Result<bool, StoreError> {
        let changed = cluster::Entity::update_many()
            .col_expr(cluster::Column::LockMessage, Expr::value(lock.map(|l| l.message.clone())))
            .col_expr(cluster::Column::LockedAt, Expr::value(lock.map(|l| ms(l.at))))
            .filter(cluster::Column::OrgId.eq(self.org))
            .filter(cluster::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }
}

/// Matches what contains `part`, whose own `%` and `_` stand for themselves.
pub(super) fn containing(part: &str) -> LikeExpr {
    let mut pattern = String::from("%");
    for letter in part.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    LikeExpr::new(pattern).escape('\\')
}

fn record(row: cluster::Model) -> Result<Cluster, StoreError> {
    let at = optional_moment(row.locked_at)?;
    let lock = at.map(|at| Lock { message: row.lock_message.unwrap_or_default(), at });
    Ok(Cluster {
        id: row.id.into(),
        name: text(&row.name, "cluster name")?,
        labels: from_json(&row.labels, "labels")?,
        created_at: moment(row.created_at)?,
        lock,
    })
}
