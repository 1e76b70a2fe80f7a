//! Agents' certificates: what was issued, to whom, with which counter.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "certificates")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub serial: String,
    pub org_id: Uuid,
    pub agent_id: Uuid,
    pub generation: i64,
    pub leaf: Vec<u8>,
    pub not_before: i64,
    pub not_after: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
