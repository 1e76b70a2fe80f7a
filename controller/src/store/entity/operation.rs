//! Operations.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operations")]
pub(in crate::store) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub org_id: Uuid,
    pub cluster_id: Option<Uuid>,
    pub kind: String,
    pub subject_kind: String,
    pub subject_id: String,
    pub subject_name: String,
    pub state: String,
    pub steps: String,
    pub intent: String,
    pub expected_low: i64,
    pub expected_high: i64,
    pub progress: Option<String>,
    pub failure: Option<String>,
    pub created_by: String,
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub deadline: i64,
    pub due_at: i64,
    pub epoch: i64,
    pub lease_until: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(in crate::store) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
