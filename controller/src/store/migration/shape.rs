//! Words for tables and columns, shared by all steps.

use sea_orm_migration::prelude::*;

pub(super) fn table(name: &'static str, columns: Vec<ColumnDef>) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name);
    for mut column in columns {
        table.col(&mut column);
    }
    table
}

pub(super) fn col(name: &'static str) -> ColumnDef {
    ColumnDef::new(name)
}

pub(super) fn id(name: &'static str) -> ColumnDef {
    col(name).uuid().not_null().take()
}

pub(super) fn text(name: &'static str) -> ColumnDef {
    col(name).text().not_null().take()
}

pub(super) fn optional_text(name: &'static str) -> ColumnDef {
    col(name).text().take()
}

pub(super) fn number(name: &'static str) -> ColumnDef {
    col(name).big_integer().not_null().take()
}

pub(super) fn optional_number(name: &'static str) -> ColumnDef {
    col(name).big_integer().take()
}

pub(super) fn bytes(name: &'static str) -> ColumnDef {
    col(name).binary().not_null().take()
}

pub(super) fn optional_bytes(name: &'static str) -> ColumnDef {
    col(name).binary().take()
}

/// Deleting the row of `table` that `column` names deletes the rows here.
pub(super) fn within(statement: &mut TableCreateStatement, column: &'static str, table: &'static str) {
    let mut key = ForeignKey::create();
    key.from_col(column).to_tbl(table).to_col("id").on_delete(ForeignKeyAction::Cascade);
    statement.foreign_key(&mut key);
}

pub(super) fn primary(statement: &mut TableCreateStatement, columns: &[&'static str]) {
    let mut key = Index::create();
    for column in columns {
        key.col(*column);
    }
    statement.primary_key(&mut key);
}

pub(super) fn with_id(
    name: &'static str,
    columns: Vec<ColumnDef>,
    parents: &[(&'static str, &'static str)],
) -> TableCreateStatement {
    let mut all = vec![id("id")];
    all.extend(columns);
    let mut statement = table(name, all);
    primary(&mut statement, &["id"]);
    for (column, parent) in parents {
        within(&mut statement, column, parent);
    }
    statement
}

pub(super) fn index(
    name: &'static str,
    table: &'static str,
    columns: &[&'static str],
) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}
