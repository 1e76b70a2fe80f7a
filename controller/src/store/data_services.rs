//! Data services: what is wanted, and what was last seen.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};

use super::clusters::containing;
use super::convert::{from_json, json, moment, ms, optional_moment, signed, text, unsigned};
use super::entity::data_service;
use super::{Org, OrgTx, StoreError};
use crate::domain::data_service::Seen;
use crate::domain::{
    Claim, ClusterId, DataService, DataServiceId, DataServiceRef, Namespace, ProjectId, ServiceName, Time,
};

/// Which data services of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct DataServiceRows {
    /// Only those of this project.
    pub project: Option<ProjectId>,
    /// Only those in this cluster.
    pub cluster: Option<ClusterId>,
    /// Only those of this engine.
    pub engine: Option<String>,
    /// Only those whose name contains this.
    pub name: Option<String>,
    /// Those that are gone, instead of those that are there.
    pub deleted: bool,
}

impl<C: ConnectionTrait> Org<C> {
    /// Data services that `which` can mean, newest first: one by an id, any number by a name, of
    /// those that are deleted too.
    pub async fn data_services_named(&self, which: &DataServiceRef) -> Result<Vec<DataService>, StoreError> {
        use data_service::Column as C;
        let query = data_service::Entity::find().filter(C::OrgId.eq(self.org));
        let query = match which {
            DataServiceRef::Id(id) => query.filter(C::Id.eq(id.uuid())),
            DataServiceRef::Name(name) => query.filter(C::Name.eq(name.as_str())),
        };
        // Alive ones first: their time of deletion is absent.
        let alive = sea_orm::ExprTrait::is_null(Expr::col(C::DeletedAt));
        let query = query.order_by_desc(alive).order_by_desc(C::Id);
        query.limit(2).all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// One data service.
    pub async fn data_service(&self, id: DataServiceId) -> Result<Option<DataService>, StoreError> {
        Ok(self.data_services_named(&id.into()).await?.pop())
    }

    /// The data service that has this place now.
    pub async fn data_service_at(
        &self,
        cluster: ClusterId,
        namespace: &Namespace,
        name: &ServiceName,
    ) -> Result<Option<DataService>, StoreError> {
        use data_service::Column as C;
        let query = data_service::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::ClusterId.eq(cluster.uuid()))
            .filter(C::Namespace.eq(namespace.as_str()))
            .filter(C::Name.eq(name.as_str()))
            .filter(C::DeletedAt.is_null());
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Data services with these names in these clusters, those that are gone too: alive ones
    /// first, then newest first.
    pub async fn data_services_called(
        &self,
        clusters: &[ClusterId],
        names: &[String],
    ) -> Result<Vec<DataService>, StoreError> {
        use data_service::Column as C;
        let alive = sea_orm::ExprTrait::is_null(Expr::col(C::DeletedAt));
        let query = data_service::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::ClusterId.is_in(clusters.iter().map(|id| id.uuid())))
            .filter(C::Name.is_in(names.iter().map(String::as_str)))
            .order_by_desc(alive)
            .order_by_desc(C::Id);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// Data services, oldest first, after the id `after`, at most `limit`.
    pub async fn data_services(
        &self,
        wanted: &DataServiceRows,
        after: Option<DataServiceId>,
        limit: u64,
    ) -> Result<Vec<DataService>, StoreError> {
        use data_service::Column as C;
        let mut query = data_service::Entity::find().filter(C::OrgId.eq(self.org));
        if let Some(project) = wanted.project {
            query = query.filter(C::ProjectId.eq(project.uuid()));
        }
        if let Some(cluster) = wanted.cluster {
            query = query.filter(C::ClusterId.eq(cluster.uuid()));
        }
        if let Some(engine) = &wanted.engine {
            query = query.filter(C::Engine.eq(engine.as_str()));
        }
        if let Some(part) = &wanted.name {
            query = query.filter(sea_orm::ExprTrait::like(Expr::col(C::Name), containing(part)));
        }
        query = match wanted.deleted {
            true => query.filter(C::DeletedAt.is_not_null()),
            false => query.filter(C::DeletedAt.is_null()),
        };
        if let Some(after) = after {
            query = query.filter(C::Id.gt(after.uuid()));
        }
        let query = query.order_by_asc(C::Id).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// How many data services, deleted ones counted, a project has.
    pub async fn data_services_in(&self, project: ProjectId) -> Result<u64, StoreError> {
        use data_service::Column as C;
        use sea_orm::PaginatorTrait as _;
        let query = data_service::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::ProjectId.eq(project.uuid()))
            .filter(C::DeletedAt.is_null());
        Ok(query.count(&self.conn).await?)
    }
}

impl OrgTx {
    /// Writes a new data service with what it claims of its project's quota.
    pub async fn add_data_service(&self, made: &DataService, claim: Claim) -> Result<(), StoreError> {
        let row = data_service::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            project_id: Set(made.project.uuid()),
            cluster_id: Set(made.cluster.uuid()),
            namespace: Set(made.namespace.to_string()),
            name: Set(made.name.to_string()),
            engine: Set(made.spec.engine.clone()),
            spec: Set(json(&made.spec)?),
            revision: Set(signed(made.revision)),
            sent_revision: Set(signed(made.sent_revision)),
            unmanaged: Set(made.unmanaged),
            cpu_milli: Set(signed(claim.cpu_milli)),
            memory_bytes: Set(signed(claim.memory_bytes)),
            storage_bytes: Set(signed(claim.storage_bytes)),
            created_at: Set(ms(made.created_at)),
            updated_at: Set(ms(made.updated_at)),
            deleted_at: Set(made.deleted_at.map(ms)),
            undelete_until: Set(made.undelete_until.map(ms)),
            seen: Set(made.seen.as_ref().map(json).transpose()?),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Writes spec, revision and claim of a data service whose stored revision is still
    /// `before`. `false` when somebody else was faster.
    pub async fn change_data_service(
        &self,
        new: &DataService,
        before: u64,
        claim: Claim,
    ) -> Result<bool, StoreError> {
        use data_service::Column as C;
        let changed = data_service::Entity::update_many()
            .col_expr(C::Spec, Expr::value(json(&new.spec)?))
            .col_expr(C::Engine, Expr::value(new.spec.engine.as_str()))
            .col_expr(C::Revision, Expr::value(signed(new.revision)))
            .col_expr(C::SentRevision, Expr::value(signed(new.sent_revision)))
            .col_expr(C::Unmanaged, Expr::value(new.unmanaged))
            .col_expr(C::ProjectId, Expr::value(new.project.uuid()))
            .col_expr(C::CpuMilli, Expr::value(signed(claim.cpu_milli)))
            .col_expr(C::MemoryBytes, Expr::value(signed(claim.memory_bytes)))
            .col_expr(C::StorageBytes, Expr::value(signed(claim.storage_bytes)))
            .col_expr(C::UpdatedAt, Expr::value(ms(new.updated_at)))
            .col_expr(C::DeletedAt, Expr::value(new.deleted_at.map(ms)))
            .col_expr(C::UndeleteUntil, Expr::value(new.undelete_until.map(ms)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(new.id.uuid()))
            .filter(C::Revision.eq(signed(before)))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Writes down what was seen, or that nothing is there.
    pub async fn saw_data_service(&self, id: DataServiceId, seen: Option<&Seen>) -> Result<bool, StoreError> {
        use data_service::Column as C;
        let changed = data_service::Entity::update_many()
            .col_expr(C::Seen, Expr::value(seen.map(json).transpose()?))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Writes down which revision the cluster was sent.
    pub async fn sent_data_service(&self, id: DataServiceId, revision: u64) -> Result<(), StoreError> {
        use data_service::Column as C;
        data_service::Entity::update_many()
            .col_expr(C::SentRevision, Expr::value(signed(revision)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(())
    }

    /// A data service is gone; its claim and its name are free.
    pub async fn data_service_gone(
        &self,
        id: DataServiceId,
        at: Time,
        undelete_until: Option<Time>,
    ) -> Result<bool, StoreError> {
        use data_service::Column as C;
        let changed = data_service::Entity::update_many()
            .col_expr(C::DeletedAt, Expr::value(ms(at)))
            .col_expr(C::UndeleteUntil, Expr::value(undelete_until.map(ms)))
            .filter(C::OrgId.eq(self.org))
            .filter(C::Id.eq(id.uuid()))
            .filter(C::DeletedAt.is_null())
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }
}

fn record(row: data_service::Model) -> Result<DataService, StoreError> {
    Ok(DataService {
        id: row.id.into(),
        project: row.project_id.into(),
        cluster: row.cluster_id.into(),
        namespace: text(&row.namespace, "namespace")?,
        name: text(&row.name, "data service name")?,
        spec: from_json(&row.spec, "data service spec")?,
        revision: unsigned(row.revision)?,
        sent_revision: unsigned(row.sent_revision)?,
        unmanaged: row.unmanaged,
        created_at: moment(row.created_at)?,
        updated_at: moment(row.updated_at)?,
        deleted_at: optional_moment(row.deleted_at)?,
        undelete_until: optional_moment(row.undelete_until)?,
        seen: row.seen.map(|seen| from_json(&seen, "what was seen")).transpose()?,
    })
}
