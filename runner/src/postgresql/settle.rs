//! Users, passwords and databases on a primary: brought to what they shall be, as often as it is asked.
use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret as _, SecretString};

use super::conf::slot;
use super::connect::{Session, local, refused};
use super::{ADMIN, MONITOR, REPLICATION};
use crate::engine::{EngineError, Situation};

/// Brings them.
///
/// # Errors
/// [`EngineError::Refused`] names the step; what was done before it stays.
pub(super) async fn settle(now: &Situation) -> Result<(), EngineError> {
    let session = local(now, "postgres").await?;
    // Even a verifier is nothing for a log.
    run(&session, "keep verifiers out of the log", "SET log_statement = 'none'").await?;
    run(&session, "keep verifiers out of the log", "SET log_min_duration_statement = -1").await?;
    run(&session, "keep verifiers out of the log", "SET log_min_error_statement = 'panic'").await?;
    let owner = now.config.owner.as_str();
    let credentials = &now.credentials;
    role(&session, ADMIN, "SUPERUSER LOGIN", &credentials.admin).await?;
    role(&session, REPLICATION, "REPLICATION LOGIN", &credentials.replication).await?;
    role(&session, MONITOR, "LOGIN CONNECTION LIMIT 16", &credentials.monitor).await?;
    role(&session, owner, "LOGIN NOSUPERUSER", &credentials.owner).await?;
    run(&session, "let the monitor look", &format!("GRANT pg_monitor TO {MONITOR}")).await?;
    database(&session, owner).await?;
    heartbeat(&session).await?;
    slots(now, &session).await
}

/// A slot for each member that may follow, so that what it lacks is kept for it within `max_slot_wal_keep_size`; none
/// for those that shall go.
async fn slots(now: &Situation, session: &Session) -> Result<(), EngineError> {
    let members = (0..now.config.replicas).map(|ordinal| format!("{}-{ordinal}", now.config.database));
    let wanted: Vec<String> = members.filter(|pod| *pod != now.pod).map(|pod| slot(&pod)).collect();
    drop_slots(session, &wanted).await?;
    let made = session
        .client
        .query(
            "SELECT pg_create_physical_replication_slot(name, true) FROM unnest($1::text[]) AS name \
             WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = name)",
            &[&wanted],
        )
        .await;
    made.map(|_| ()).map_err(|error| refused("make slots for standbys", &error))
}

/// Drops physical slots that nobody uses, besides the wanted.
///
/// # Errors
/// [`EngineError::Refused`].
pub(super) async fn drop_slots(session: &Session, wanted: &[String]) -> Result<(), EngineError> {
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let dropped = session
        .client
        .query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE slot_type = 'physical' AND NOT active AND NOT slot_name = ANY ($1::text[]::name[])",
            &[&wanted],
        )
        .await;
    dropped.map(|_| ()).map_err(|error| refused("drop slots of standbys that are gone", &error))
}

/// Makes a role, or gives it its password anew: the server keeps a verifier that cannot be compared.
async fn role(
    session: &Session,
    name: &str,
    rights: &str,
    password: &SecretString,
) -> Result<(), EngineError> {
    let what = format!("set the role {name}");
    let found = session
        .client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&name])
        .await
        .map_err(|error| refused(&what, &error))?;
    let verb = if found.is_some() { "ALTER" } else { "CREATE" };
    let verifier = scram_sha_256(password.expose_secret().as_bytes());
    let statement = format!("{verb} ROLE {} {rights} PASSWORD '{verifier}'", identifier(name));
    run(session, &what, &statement).await
}

async fn database(session: &Session, owner: &str) -> Result<(), EngineError> {
    let what = "make the owner's database";
    let found = session
        .client
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&owner])
        .await
        .map_err(|error| refused(what, &error))?;
    if found.is_none() {
        run(session, what, &format!("CREATE DATABASE {0} OWNER {0}", identifier(owner))).await?;
    }
    Ok(())
}

/// The table that the probe writes into.
async fn heartbeat(session: &Session) -> Result<(), EngineError> {
    let statement = format!(
        "CREATE SCHEMA IF NOT EXISTS culvert; \
         CREATE TABLE IF NOT EXISTS culvert.heartbeat (pod text PRIMARY KEY, at timestamptz NOT NULL); \
         GRANT USAGE ON SCHEMA culvert TO {MONITOR}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON culvert.heartbeat TO {MONITOR}"
    );
    run(session, "make the table of the probe", &statement).await
}

async fn run(session: &Session, what: &str, statement: &str) -> Result<(), EngineError> {
    session.client.batch_execute(statement).await.map_err(|error| refused(what, &error))
}

/// A name in a statement.
#[must_use]
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_end_its_quotes() {
        assert_eq!(super::identifier("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}
