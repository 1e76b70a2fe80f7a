//! Objects of customers' clusters, as their agents told them.

use sea_orm_migration::prelude::*;

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20261125_031000_observed_objects"
    }
}

// The trait writes the type without its lifetime, and the two must read alike.
#[allow(elided_lifetimes_in_paths)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(objects()).await?;
        manager.create_table(clusters()).await?;
        for (name, columns) in [
            ("observed_objects_id", ["org_id", "id"].as_slice()),
            ("observed_objects_record", &["org_id", "kind", "record"]),
            ("observed_objects_age", &["org_id", "kind", "made_at", "id"]),
        ] {
            manager.create_index(index(name, columns)).await?;
        }
        Ok(())
    }
}

fn objects() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("observed_objects");
    for name in ["cluster_id", "org_id", "id", "uid"] {
        table.col(ColumnDef::new(name).uuid().not_null());
    }
    for name in ["kind", "namespace", "name", "object"] {
        table.col(ColumnDef::new(name).text().not_null());
    }
    table.col(ColumnDef::new("record").text());
    for name in ["generation", "made_at", "bytes", "observed_at"] {
        table.col(ColumnDef::new(name).big_integer().not_null());
    }
    table.col(ColumnDef::new("digest").binary().not_null());
    table.col(ColumnDef::new("cut").boolean().not_null());
    let mut key = Index::create();
    key.col("cluster_id").col("kind").col("namespace").col("name");
    table.primary_key(&mut key);
    within(&mut table);
    table
}

fn clusters() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("observed_clusters");
    table.col(ColumnDef::new("cluster_id").uuid().not_null().primary_key());
    table.col(ColumnDef::new("org_id").uuid().not_null());
    table.col(ColumnDef::new("synced_at").big_integer().not_null());
    table.col(ColumnDef::new("partial").boolean().not_null());
    within(&mut table);
    table
}

/// What is known of a cluster goes with its record.
fn within(table: &mut TableCreateStatement) {
    for (column, parent) in [("org_id", "organisations"), ("cluster_id", "clusters")] {
        let mut key = ForeignKey::create();
        key.from_col(column).to_tbl(parent).to_col("id").on_delete(ForeignKeyAction::Cascade);
        table.foreign_key(&mut key);
    }
}

fn index(name: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table("observed_objects");
    for column in columns {
        index.col(*column);
    }
    index
}
