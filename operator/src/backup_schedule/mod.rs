//! Schedules of backups.
pub(crate) mod retention;
