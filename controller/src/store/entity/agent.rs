//! Agents.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "agents")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub org_id: Uuid,
    pub cluster_id: Uuid,
    pub version: String,
    pub enrolled_at: i64,
    pub revoked_at: Option<i64>,
    pub lock_message: Option<String>,
    pub locked_at: Option<i64>,
    pub generation: i64,
    pub seen_generation: i64,
    pub certificate_not_after: i64,
    pub last_seen_at: Option<i64>,
    pub last_source: Option<String>,
    pub last_epoch: i64,
    pub facts: Option<String>,
    pub last_refusal: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
