//! Projects, templates, data services and operations.

use sea_orm_migration::prelude::*;

use super::shape::{col, id, index, number, optional_number, optional_text, text, with_id};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20261125_030000_data_services"
    }
}

// The trait writes the type without its lifetime, and the two must read alike.
#[allow(elided_lifetimes_in_paths)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [projects(), templates(), data_services(), operations()] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

const ORG: (&str, &str) = ("org_id", "organisations");
const PROJECT: (&str, &str) = ("project_id", "projects");
const CLUSTER: (&str, &str) = ("cluster_id", "clusters");

fn projects() -> TableCreateStatement {
    let columns = vec![id("org_id"), text("name"), optional_text("quota"), number("created_at")];
    with_id("projects", columns, &[ORG])
}

fn templates() -> TableCreateStatement {
    let columns = vec![
        id("org_id"),
        text("name"),
        number("revision"),
        text("description"),
        text("engine"),
        text("spec"),
        number("created_at"),
        number("updated_at"),
    ];
    with_id("templates", columns, &[ORG])
}

fn data_services() -> TableCreateStatement {
    let columns = vec![
        id("org_id"),
        id("project_id"),
        id("cluster_id"),
        text("namespace"),
        text("name"),
        text("engine"),
        text("spec"),
        number("revision"),
        number("sent_revision"),
        col("unmanaged").boolean().not_null().take(),
        number("cpu_milli"),
        number("memory_bytes"),
        number("storage_bytes"),
        number("created_at"),
        number("updated_at"),
        optional_number("deleted_at"),
        optional_number("undelete_until"),
        optional_text("seen"),
    ];
    with_id("data_services", columns, &[ORG, PROJECT, CLUSTER])
}

fn operations() -> TableCreateStatement {
    let columns = vec![
        id("org_id"),
        col("cluster_id").uuid().take(),
        text("kind"),
        text("subject_kind"),
        text("subject_id"),
        text("subject_name"),
        text("state"),
        text("steps"),
        text("intent"),
        number("expected_low"),
        number("expected_high"),
        optional_text("progress"),
        optional_text("failure"),
        text("created_by"),
        number("created_at"),
        optional_number("started_at"),
        optional_number("ended_at"),
        number("deadline"),
        number("due_at"),
        number("epoch"),
        optional_number("lease_until"),
    ];
    with_id("operations", columns, &[ORG, CLUSTER])
}

fn indexes() -> Vec<IndexCreateStatement> {
    let unique = [
        ("projects_name", "projects", vec!["org_id", "name"]),
        ("templates_name", "templates", vec!["org_id", "name"]),
    ];
    let plain = [
        ("data_services_org", "data_services", vec!["org_id", "id"]),
        ("data_services_project", "data_services", vec!["project_id"]),
        ("operations_org", "operations", vec!["org_id", "id"]),
        ("operations_subject", "operations", vec!["org_id", "subject_id", "id"]),
        ("operations_due", "operations", vec!["state", "due_at"]),
    ];
    // The name of what was deleted is free again.
    let alive = index("data_services_name", "data_services", &["cluster_id", "namespace", "name"])
        .unique()
        .cond_where(Expr::col("deleted_at").is_null())
        .take();
    let unique =
        unique.into_iter().map(|(name, table, columns)| index(name, table, &columns).unique().take());
    let plain = plain.into_iter().map(|(name, table, columns)| index(name, table, &columns));
    unique.chain(plain).chain([alive]).collect()
}
