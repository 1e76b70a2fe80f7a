//! The latest attempts to enrol, per cluster.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "enrolment_attempts")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub org_id: Uuid,
    pub cluster_id: Uuid,
    pub at: i64,
    pub source: String,
    pub stage: String,
    pub reached: String,
    pub outcome: String,
    pub cause: Option<String>,
    pub detail: String,
    pub agent_version: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
