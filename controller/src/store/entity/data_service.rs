//! Data services.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "data_services")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub org_id: Uuid,
    pub project_id: Uuid,
    pub cluster_id: Uuid,
    pub namespace: String,
    pub name: String,
    pub engine: String,
    pub spec: String,
    pub revision: i64,
    pub sent_revision: i64,
    pub unmanaged: bool,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    pub undelete_until: Option<i64>,
    pub seen: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
