//! Projects, and what their services use.

use sea_orm::sea_query::{Expr, LockType, OnConflict};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::convert::{from_json, json, moment, ms, text};
use super::entity::{data_service, project};
use super::{Installation, Org, OrgTx, StoreError};
use crate::domain::project::DEFAULT;
use crate::domain::{Claim, DataServiceId, OrgId, Project, ProjectId, ProjectName, ProjectRef, Quota, Time};

impl<C: ConnectionTrait> Org<C> {
    /// A project, by id or name.
    pub async fn project(&self, which: &ProjectRef) -> Result<Option<Project>, StoreError> {
        let query = project::Entity::find().filter(project::Column::OrgId.eq(self.org));
        let query = match which {
            ProjectRef::Id(id) => query.filter(project::Column::Id.eq(id.uuid())),
            ProjectRef::Name(name) => query.filter(project::Column::Name.eq(name.as_str())),
        };
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// The project that is always there.
    pub async fn default_project(&self) -> Result<Option<Project>, StoreError> {
        let query = project::Entity::find()
            .filter(project::Column::OrgId.eq(self.org))
            .filter(project::Column::Name.eq(DEFAULT));
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Projects by name, after the name `after`, at most `limit`.
    pub async fn projects(
        &self,
        after: Option<&ProjectName>,
        limit: u64,
    ) -> Result<Vec<Project>, StoreError> {
        let mut query = project::Entity::find().filter(project::Column::OrgId.eq(self.org));
        if let Some(after) = after {
            query = query.filter(project::Column::Name.gt(after.as_str()));
        }
        let query = query.order_by_asc(project::Column::Name).limit(limit);
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// The projects with these ids.
    pub async fn projects_of(&self, ids: &[ProjectId]) -> Result<Vec<Project>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let query = project::Entity::find()
            .filter(project::Column::OrgId.eq(self.org))
            .filter(project::Column::Id.is_in(ids));
        query.all(&self.conn).await?.into_iter().map(record).collect()
    }

    /// What the services of a project claim together; without the service `besides`.
    pub async fn used_of(&self, id: ProjectId, besides: Option<DataServiceId>) -> Result<Claim, StoreError> {
        use data_service::Column as C;
        let mut query = data_service::Entity::find()
            .filter(C::OrgId.eq(self.org))
            .filter(C::ProjectId.eq(id.uuid()))
            .filter(C::DeletedAt.is_null())
            .select_only()
            .columns([C::CpuMilli, C::MemoryBytes, C::StorageBytes]);
        if let Some(besides) = besides {
            query = query.filter(C::Id.ne(besides.uuid()));
        }
        let rows: Vec<(i64, i64, i64)> = query.into_tuple().all(&self.conn).await?;
        let amount = |stored: i64| u64::try_from(stored).unwrap_or_default();
        let claims = rows.into_iter().map(|(cpu, memory, storage)| Claim {
            data_services: 1,
            cpu_milli: amount(cpu),
            memory_bytes: amount(memory),
            storage_bytes: amount(storage),
        });
        Ok(claims.fold(Claim::default(), Claim::and))
    }
}

impl Installation {
    /// Makes the project that is always there, unless it is.
    pub async fn add_default_project(&self, org: OrgId, now: Time) -> Result<(), StoreError> {
        let row = project::ActiveModel {
            id: Set(ProjectId::generate().uuid()),
            org_id: Set(org.uuid()),
            name: Set(DEFAULT.to_owned()),
            quota: Set(None),
            created_at: Set(ms(now)),
        };
        let known =
            OnConflict::columns([project::Column::OrgId, project::Column::Name]).do_nothing().to_owned();
        project::Entity::insert(row).on_conflict(known).exec_without_returning(&self.conn).await?;
        Ok(())
    }
}

impl OrgTx {
    /// Writes a new project.
    pub async fn add_project(&self, made: &Project) -> Result<(), StoreError> {
        let row = project::ActiveModel {
            id: Set(made.id.uuid()),
            org_id: Set(self.org),
            name: Set(made.name.to_string()),
            quota: Set(made.quota.as_ref().map(json).transpose()?),
            created_at: Set(ms(made.created_at)),
        };
        row.insert(&self.conn).await?;
        Ok(())
    }

    /// Holds a project's row until the end of the transaction: of two that reserve from one
    /// quota, the second counts after the first has written.
    pub async fn hold_project(&self, id: ProjectId) -> Result<Option<Project>, StoreError> {
        let query = project::Entity::find()
            .filter(project::Column::OrgId.eq(self.org))
            .filter(project::Column::Id.eq(id.uuid()))
            .lock(LockType::NoKeyUpdate);
        query.one(&self.conn).await?.map(record).transpose()
    }

    /// Changes a project's name and quota. `false` when there is none.
    pub async fn change_project(
        &self,
        id: ProjectId,
        name: &ProjectName,
        quota: Option<&Quota>,
    ) -> Result<bool, StoreError> {
        let changed = project::Entity::update_many()
            .col_expr(project::Column::Name, Expr::value(name.as_str()))
            .col_expr(project::Column::Quota, Expr::value(quota.map(json).transpose()?))
            .filter(project::Column::OrgId.eq(self.org))
            .filter(project::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(changed.rows_affected == 1)
    }

    /// Deletes a project. `false` when there was none.
    pub async fn delete_project(&self, id: ProjectId) -> Result<bool, StoreError> {
        let deleted = project::Entity::delete_many()
            .filter(project::Column::OrgId.eq(self.org))
            .filter(project::Column::Id.eq(id.uuid()))
            .exec(&self.conn)
            .await?;
        Ok(deleted.rows_affected == 1)
    }
}

fn record(row: project::Model) -> Result<Project, StoreError> {
    Ok(Project {
        id: row.id.into(),
        name: text(&row.name, "project name")?,
        quota: row.quota.map(|quota| from_json(&quota, "quota")).transpose()?,
        created_at: moment(row.created_at)?,
    })
}
