//! Replicas of the controller, the sessions each holds, and what they tell one another.

use sea_orm_migration::prelude::*;

use super::shape::{id, index, number, primary, table, text, with_id, within};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20261125_190000_replicas"
    }
}

// The trait writes the type without its lifetime, and the two must read alike.
#[allow(elided_lifetimes_in_paths)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(with_id("replicas", vec![text("address"), number("beat")], &[])).await?;
        manager.create_table(sessions()).await?;
        manager.create_table(news()).await?;
        manager.create_index(index("agent_sessions_replica", "agent_sessions", &["replica_id"])).await
    }
}

fn sessions() -> TableCreateStatement {
    let columns = vec![
        id("agent_id"),
        id("org_id"),
        id("replica_id"),
        number("epoch"),
        text("instance"),
        text("source"),
        number("connected_at"),
    ];
    let mut statement = table("agent_sessions", columns);
    primary(&mut statement, &["agent_id"]);
    for (column, parent) in [("agent_id", "agents"), ("replica_id", "replicas")] {
        within(&mut statement, column, parent);
    }
    statement
}

fn news() -> TableCreateStatement {
    let columns = vec![id("replica_id"), number("sequence"), text("kind"), id("org_id"), id("subject")];
    let mut statement = table("replica_news", columns);
    primary(&mut statement, &["replica_id", "sequence"]);
    within(&mut statement, "replica_id", "replicas");
    statement
}
