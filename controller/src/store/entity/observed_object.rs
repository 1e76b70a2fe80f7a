//! Objects of customers' clusters, as their agents told them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "observed_objects")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub namespace: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub org_id: Uuid,
    pub id: Uuid,
    pub uid: Uuid,
    pub record: Option<String>,
    pub generation: i64,
    pub made_at: i64,
    pub object: String,
    /// Length of `object`, so that a cluster's sum needs no reading of them.
    pub bytes: i64,
    pub digest: Vec<u8>,
    pub cut: bool,
    pub observed_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
