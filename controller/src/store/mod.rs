//! The store: SQLite by default, PostgreSQL by URL, one schema and one set of
//! queries for both.
//!
//! A tenant's rows are reached only through [`OrgStore`] and [`OrgTx`], and those
//! are obtained only with a [`Caller`]: every query below them filters by the
//! caller's organisation, so a forgotten check cannot show one tenant's row to
//! another. What belongs to no tenant, and the look-ups by secret with which a
//! caller is found in the first place, are methods of [`Store`] itself.
//!
//! Every change happens in a transaction ([`OrgTx`]) that also carries its line of
//! the audit; nothing is kept of a change whose line could not be written.
//!
//! SQLite has one writer, so there is one connection for writing, in which
//! transactions begin immediately, and a pool for reading. `synchronous=FULL`
//! makes a commit survive a power cut. With PostgreSQL both are the same pool.
//!
//! Mistakes a newcomer could make:
//! - holding an [`OrgTx`] while waiting for anything but the database: with SQLite
//!   that stops every other change.
//! - reading, deciding and writing without a condition in the write. With
//!   PostgreSQL two transactions may read the same state; what must happen once is
//!   an `UPDATE … WHERE` whose count of changed rows is looked at.
//! - locking rows in another order than others do: first the cluster
//!   ([`OrgTx::hold_cluster`]), then what is below it, and the audit last, whose
//!   counter is the organisation's.
//! - changing a released migration.

mod agents;
mod api_tokens;
mod attempts;
mod audit;
mod backup_targets;
mod clusters;
mod convert;
mod data_services;
mod entity;
mod idempotency;
mod installation;
mod join_tokens;
mod migration;
mod observed;
mod open;
mod operations;
mod organisations;
mod projects;
mod replicas;
mod sign_in;
mod sweep;
mod templates;

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, SqlErr};
use thiserror::Error;
use uuid::Uuid;

use crate::domain::{Caller, OrgId};

pub use agents::{Admitted, NewCertificate, NewEnrolment, StoredCertificate};
pub use data_services::DataServiceRows;
pub use idempotency::Recalled;
pub use installation::{Installation, StoredAuthority, StoredDataKey};
pub use observed::{ObservedFilter, Seen, Written};
pub use open::OpenError;
pub use operations::{DueOperation, OperationRows};
pub use organisations::Founding;
pub use replicas::Claim;
pub use sign_in::CodeOwner;
pub use sweep::Swept;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A row with the same unique value exists.
    #[error("a row with the same unique value exists")]
    Duplicate(#[source] DbErr),
    /// The row that another must belong to is gone.
    #[error("the row this belongs to is gone")]
    Orphan(#[source] DbErr),
    /// The database cannot be used now.
    #[error("the database cannot be used now")]
    Unavailable(#[source] DbErr),
    /// The database refused a statement of ours.
    #[error("the database refused a statement")]
    Statement(#[source] DbErr),
    /// A stored value does not have its form.
    #[error("a stored value does not have its form: {0}")]
    Corrupt(&'static str),
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => return Self::Duplicate(error),
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => return Self::Orphan(error),
            _ => {}
        }
        match &error {
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => Self::Unavailable(error),
            other if is_busy(other) => Self::Unavailable(error),
            _ => Self::Statement(error),
        }
    }
}

/// A lock that was not got in time, or a connection that broke.
fn is_busy(error: &DbErr) -> bool {
    let text = error.to_string();
    ["database is locked", "could not serialize", "deadlock detected", "error communicating with database"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// The database of one installation.
#[derive(Debug, Clone)]
pub struct Store {
    read: DatabaseConnection,
    write: DatabaseConnection,
}

/// The rows of one organisation, or a transaction on them.
#[derive(Debug)]
pub struct Org<C> {
    conn: C,
    org: Uuid,
    caller: Caller,
}

/// Reads the rows of the caller's organisation.
pub type OrgStore = Org<DatabaseConnection>;

/// Changes rows of the caller's organisation; nothing is kept without
/// [`OrgTx::commit`].
pub type OrgTx = Org<DatabaseTransaction>;

impl Store {
    /// What `caller` may read.
    #[must_use]
    pub fn org(&self, caller: &Caller) -> OrgStore {
        Org { conn: self.read.clone(), org: caller.org().uuid(), caller: caller.clone() }
    }

    /// Begins a change in the name of `caller`.
    pub async fn write(&self, caller: &Caller) -> Result<OrgTx, StoreError> {
        let conn = self.begin().await?;
        Ok(Org { conn, org: caller.org().uuid(), caller: caller.clone() })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read.execute_unprepared("SELECT 1").await?;
        Ok(())
    }
}

impl<C> Org<C> {
    /// The organisation.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org.into()
    }
}

impl OrgTx {
    /// Keeps everything that was done.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.conn.commit().await?)
    }
}
