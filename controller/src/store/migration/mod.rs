//! The schema, as a row of steps that only ever grows.
//!
//! A step is named by the UTC time it was written, and is never changed once it
//! was released. All steps that are due run in one transaction, so a process that
//! is killed in the middle leaves either the old schema or the new one.

mod m20261123_190000_first_tables;
mod m20261125_030000_data_services;
mod m20261125_031000_observed_objects;
mod m20261125_034500_backup_targets;
mod m20261125_190000_replicas;
mod shape;

use sea_orm_migration::{MigrationTrait, MigratorTrait};

/// The row of steps.
pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_190000_first_tables::Migration),
            Box::new(m20261125_030000_data_services::Migration),
            Box::new(m20261125_031000_observed_objects::Migration),
            Box::new(m20261125_034500_backup_targets::Migration),
            Box::new(m20261125_190000_replicas::Migration),
        ]
    }
}
