//! Schedules of backups.
pub mod retention;
