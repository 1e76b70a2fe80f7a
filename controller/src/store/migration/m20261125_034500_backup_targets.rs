//! Backup targets, where they are wanted, and the keys of organisations' backups.

use sea_orm_migration::prelude::*;

use super::shape::{
    bytes, id, index, number, optional_number, optional_text, primary, table, text, with_id, within,
};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20261125_034500_backup_targets"
    }
}

// The trait writes the type without its lifetime, and the two must read alike.
#[allow(elided_lifetimes_in_paths)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [targets(), placements(), keys()] {
            manager.create_table(table).await?;
        }
        let name = index("backup_targets_name", "backup_targets", &["org_id", "name"]).unique().take();
        manager.create_index(name).await?;
        manager.create_index(index("target_placements_due", "target_placements", &["due_at"])).await
    }
}

const ORG: (&str, &str) = ("org_id", "organisations");

fn targets() -> TableCreateStatement {
    let columns = vec![
        id("org_id"),
        text("name"),
        text("spec"),
        number("revision"),
        number("credential_generation"),
        bytes("sealed_credentials"),
        optional_number("check_asked_at"),
        number("created_at"),
        optional_number("deleted_at"),
    ];
    with_id("backup_targets", columns, &[ORG])
}

fn placements() -> TableCreateStatement {
    let columns = vec![
        id("target_id"),
        id("cluster_id"),
        text("namespace"),
        id("org_id"),
        optional_text("sent"),
        text("trouble"),
        number("due_at"),
    ];
    let mut statement = table("target_placements", columns);
    primary(&mut statement, &["target_id", "cluster_id", "namespace"]);
    for (column, parent) in [ORG, ("target_id", "backup_targets"), ("cluster_id", "clusters")] {
        within(&mut statement, column, parent);
    }
    statement
}

fn keys() -> TableCreateStatement {
    let mut statement = table("backup_keys", vec![id("org_id"), bytes("sealed_key"), number("created_at")]);
    primary(&mut statement, &["org_id"]);
    within(&mut statement, ORG.0, ORG.1);
    statement
}
