//! Numbers of PostgreSQL for `/metrics`.
use super::connect::{monitor, refused};
use crate::engine::{EngineError, Sample, Situation};

/// Name, help, whether it only grows; in the order of the columns of [`LOOK`].
const NUMBERS: [(&str, &str, bool); 12] = [
    ("culvert_postgresql_connections", "Sessions of clients.", false),
    ("culvert_postgresql_max_connections", "Sessions that are allowed.", false),
    ("culvert_postgresql_transactions_committed_total", "Transactions that were committed.", true),
    ("culvert_postgresql_transactions_rolled_back_total", "Transactions that were rolled back.", true),
    ("culvert_postgresql_blocks_hit_total", "Blocks that were found in memory.", true),
    ("culvert_postgresql_blocks_read_total", "Blocks that were read.", true),
    ("culvert_postgresql_deadlocks_total", "Deadlocks.", true),
    ("culvert_postgresql_data_bytes", "Bytes of all databases.", false),
    ("culvert_postgresql_longest_transaction_seconds", "Age of the oldest transaction of a client.", false),
    ("culvert_postgresql_standbys", "Standbys that are connected.", false),
    ("culvert_postgresql_archived_total", "Segments of the log that were archived.", true),
    ("culvert_postgresql_archive_failures_total", "Segments of the log that could not be archived.", true),
];

const LOOK: &str = "SELECT \
     (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::float8, \
     current_setting('max_connections')::float8, \
     (SELECT sum(xact_commit) FROM pg_stat_database)::float8, \
     (SELECT sum(xact_rollback) FROM pg_stat_database)::float8, \
     (SELECT sum(blks_hit) FROM pg_stat_database)::float8, \
     (SELECT sum(blks_read) FROM pg_stat_database)::float8, \
     (SELECT sum(deadlocks) FROM pg_stat_database)::float8, \
     (SELECT sum(pg_database_size(oid)) FROM pg_database)::float8, \
     (SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0) FROM pg_stat_activity \
       WHERE backend_type = 'client backend')::float8, \
     (SELECT count(*) FROM pg_stat_replication)::float8, \
     (SELECT archived_count FROM pg_stat_archiver)::float8, \
     (SELECT failed_count FROM pg_stat_archiver)::float8";

/// Reads them.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn metrics(now: &Situation) -> Result<Vec<Sample>, EngineError> {
    let what = "read the numbers of the server";
    let session = monitor(now).await?;
    let row = session.client.query_one(LOOK, &[]).await.map_err(|error| refused(what, &error))?;
    let mut samples = Vec::new();
    for (column, (name, help, counter)) in NUMBERS.into_iter().enumerate() {
        let value: Option<f64> = row.try_get(column).map_err(|error| refused(what, &error))?;
        let Some(value) = value else { continue };
        samples.push(Sample { name, help, counter, labels: Vec::new(), value });
    }
    Ok(samples)
}
