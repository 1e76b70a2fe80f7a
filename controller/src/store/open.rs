//! Opening a database and bringing its schema up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    RuntimeErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use thiserror::Error;

use super::migration::Migrator;
use super::{Store, StoreError};

/// How long SQLite waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read a SQLite file at once.
const SQLITE_READERS: u32 = 8;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Names the lock under which one process at a time changes schema and keys.
const STARTUP_LOCK: &str = "SELECT pg_advisory_xact_lock(7240139415063)";

/// Why a database was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Neither `sqlite:` nor `postgres:`.
    #[error("the database URL begins with neither sqlite: nor postgres:")]
    UnknownKind,
    /// It could not be reached, or is no database.
    #[error("the database cannot be opened")]
    Connect(#[source] DbErr),
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[source] DbErr),
    /// It was left by a later version of this program.
    #[error("the database was written by a later version of this program; use that version")]
    Newer,
}

impl Store {
    /// Opens the database at `url` and brings its schema up to date.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let store = if url.starts_with("sqlite:") {
            make_private(url)?;
            // The writer first: it turns on the write-ahead log.
            let write = connect(sqlite(url, 1)).await?;
            Self { read: connect(sqlite(url, SQLITE_READERS)).await?, write }
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = connect(postgres(url)).await?;
            Self { read: pool.clone(), write: pool }
        } else {
            return Err(OpenError::UnknownKind);
        };
        store.migrate().await?;
        Ok(store)
    }

    /// Ends every connection; what was committed is in the file.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.read.close_by_ref().await?;
        Ok(self.write.close_by_ref().await?)
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(self.write.begin_with_options(options).await?)
    }

    /// Begins a transaction that keeps other processes from starting meanwhile.
    pub(super) async fn begin_startup(&self) -> Result<DatabaseTransaction, StoreError> {
        let tx = self.begin().await?;
        if tx.get_database_backend() == DbBackend::Postgres {
            tx.execute_unprepared(STARTUP_LOCK).await?;
        }
        Ok(tx)
    }

    async fn migrate(&self) -> Result<(), OpenError> {
        let tx = self.begin_startup().await.map_err(|error| match error {
            StoreError::Unavailable(e) | StoreError::Statement(e) => OpenError::Connect(e),
            other => OpenError::Connect(DbErr::Custom(other.to_string())),
        })?;
        Migrator::up(&tx, None).await.map_err(migration_error)?;
        tx.commit().await.map_err(OpenError::Migrate)
    }
}

/// Makes the file of a SQLite database for the owner alone; SQLite itself would let everybody
/// read it. The files that SQLite puts beside it get the same rights.
fn make_private(url: &str) -> Result<(), OpenError> {
    let failed = |what: String| OpenError::Connect(DbErr::Conn(RuntimeErr::Internal(what)));
    let options: SqliteConnectOptions =
        url.parse().map_err(|error: sqlx::Error| failed(error.to_string()))?;
    let path = options.get_filename();
    // A database in memory has a name of this form, and no file.
    if path.to_string_lossy().starts_with("file:") {
        return Ok(());
    }
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| failed(format!("{}: {error}", path.display())))
}

fn migration_error(error: DbErr) -> OpenError {
    // sea-orm names an applied step without a file only in its text.
    if error.to_string().contains("has been applied but its file is missing") {
        OpenError::Newer
    } else {
        OpenError::Migrate(error)
    }
}

async fn connect(options: ConnectOptions) -> Result<DatabaseConnection, OpenError> {
    Database::connect(options).await.map_err(OpenError::Connect)
}

fn sqlite(url: &str, connections: u32) -> ConnectOptions {
    let mut options = base(url, connections);
    options.map_sqlx_sqlite_opts(|sqlite| {
        sqlite
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // Not more than the last change; a cut-off log is truncated again.
            .pragma("journal_size_limit", "67108864")
            .pragma("trusted_schema", "OFF")
    });
    options
}

fn postgres(url: &str) -> ConnectOptions {
    let mut options = base(url, POSTGRES_CONNECTIONS);
    options.set_application_name("culvert-controller");
    options
}

fn base(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.to_owned());
    options.max_connections(connections).min_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
    // Statements carry tenants' names; what goes wrong is logged at the edge.
    options.sqlx_logging(false);
    options
}
