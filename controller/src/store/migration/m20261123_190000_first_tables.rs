//! Keys, organisations, people, clusters, agents and the audit.

use sea_orm_migration::prelude::*;

use super::shape::{
    bytes, col, id, index, number, optional_bytes, optional_number, optional_text, primary, table, text,
    with_id, within,
};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &str {
        "m20261123_190000_first_tables"
    }
}

// The trait writes the type without its lifetime, and the two must read alike.
#[allow(elided_lifetimes_in_paths)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in installation().into_iter().chain(people()).chain(clusters()).chain(records()) {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

fn installation() -> Vec<TableCreateStatement> {
    let mut settings = table("settings", vec![text("name"), text("value")]);
    primary(&mut settings, &["name"]);
    let version = col("version").integer().not_null().take();
    let mut data_keys =
        table("data_keys", vec![id("org_id"), version, bytes("wrapped"), number("created_at")]);
    primary(&mut data_keys, &["org_id", "version"]);
    let columns = vec![
        text("name"),
        bytes("certificate"),
        bytes("sealed_key"),
        number("not_after"),
        number("created_at"),
    ];
    let mut authorities = table("authorities", columns);
    primary(&mut authorities, &["name"]);
    vec![settings, data_keys, authorities]
}

const ORG: (&str, &str) = ("org_id", "organisations");
const USER: (&str, &str) = ("user_id", "users");
const CLUSTER: (&str, &str) = ("cluster_id", "clusters");

fn people() -> Vec<TableCreateStatement> {
    let organisations = vec![text("name"), number("audit_sequence"), number("created_at")];
    let users = vec![id("org_id"), text("name"), text("role"), number("created_at")];
    let codes = vec![
        bytes("hash"),
        id("org_id"),
        id("user_id"),
        number("created_at"),
        number("expires_at"),
        optional_number("used_at"),
    ];
    let mut sign_in_codes = table("sign_in_codes", codes);
    primary(&mut sign_in_codes, &["hash"]);
    for (column, parent) in [ORG, USER] {
        within(&mut sign_in_codes, column, parent);
    }
    let sessions =
        vec![id("org_id"), id("user_id"), bytes("hash"), number("created_at"), number("expires_at")];
    let api_tokens = vec![
        id("org_id"),
        text("name"),
        text("role"),
        bytes("hash"),
        optional_text("network"),
        number("created_at"),
        number("expires_at"),
    ];
    vec![
        with_id("organisations", organisations, &[]),
        with_id("users", users, &[ORG]),
        sign_in_codes,
        with_id("sessions", sessions, &[ORG, USER]),
        with_id("api_tokens", api_tokens, &[ORG]),
    ]
}

fn clusters() -> Vec<TableCreateStatement> {
    let clusters = vec![
        id("org_id"),
        text("name"),
        text("labels"),
        number("created_at"),
        optional_text("lock_message"),
        optional_number("locked_at"),
    ];
    let join_tokens = vec![
        id("org_id"),
        id("cluster_id"),
        text("public_id"),
        bytes("hash"),
        optional_text("network"),
        number("created_at"),
        number("expires_at"),
        optional_number("revoked_at"),
        optional_number("used_at"),
        optional_text("used_from"),
        optional_bytes("used_key"),
        col("used_agent").uuid().take(),
    ];
    vec![
        with_id("clusters", clusters, &[ORG]),
        with_id("join_tokens", join_tokens, &[ORG, CLUSTER]),
        agents(),
        certificates(),
    ]
}

fn agents() -> TableCreateStatement {
    let columns = vec![
        id("org_id"),
        id("cluster_id"),
        text("version"),
        number("enrolled_at"),
        optional_number("revoked_at"),
        optional_text("lock_message"),
        optional_number("locked_at"),
        number("generation"),
        number("seen_generation"),
        number("certificate_not_after"),
        optional_number("last_seen_at"),
        optional_text("last_source"),
        number("last_epoch"),
        optional_text("facts"),
        optional_text("last_refusal"),
    ];
    with_id("agents", columns, &[ORG, CLUSTER])
}

fn certificates() -> TableCreateStatement {
    let columns = vec![
        text("serial"),
        id("org_id"),
        id("agent_id"),
        number("generation"),
        bytes("leaf"),
        number("not_before"),
        number("not_after"),
    ];
    let mut statement = table("certificates", columns);
    primary(&mut statement, &["serial"]);
    for (column, parent) in [ORG, ("agent_id", "agents")] {
        within(&mut statement, column, parent);
    }
    statement
}

fn records() -> Vec<TableCreateStatement> {
    let attempts = vec![
        id("org_id"),
        id("cluster_id"),
        number("at"),
        text("source"),
        text("stage"),
        text("reached"),
        text("outcome"),
        optional_text("cause"),
        text("detail"),
        optional_text("agent_version"),
    ];
    let keys = vec![
        id("org_id"),
        text("actor"),
        text("key"),
        bytes("request_hash"),
        optional_bytes("answer"),
        number("expires_at"),
    ];
    let mut idempotency_keys = table("idempotency_keys", keys);
    primary(&mut idempotency_keys, &["org_id", "actor", "key"]);
    within(&mut idempotency_keys, ORG.0, ORG.1);
    let events = vec![
        id("org_id"),
        number("sequence"),
        id("id"),
        number("at"),
        text("actor_kind"),
        text("actor_id"),
        text("actor_name"),
        text("credential"),
        optional_text("request_id"),
        text("act"),
        text("target"),
        text("detail"),
    ];
    let mut audit_events = table("audit_events", events);
    primary(&mut audit_events, &["org_id", "sequence"]);
    within(&mut audit_events, ORG.0, ORG.1);
    vec![with_id("enrolment_attempts", attempts, &[ORG, CLUSTER]), idempotency_keys, audit_events]
}

fn indexes() -> Vec<IndexCreateStatement> {
    let unique = [
        ("organisations_name", "organisations", vec!["name"]),
        ("users_name", "users", vec!["org_id", "name"]),
        ("sessions_hash", "sessions", vec!["hash"]),
        ("api_tokens_hash", "api_tokens", vec!["hash"]),
        ("api_tokens_name", "api_tokens", vec!["org_id", "name"]),
        ("clusters_name", "clusters", vec!["org_id", "name"]),
        ("join_tokens_public_id", "join_tokens", vec!["public_id"]),
        ("certificates_generation", "certificates", vec!["agent_id", "generation"]),
    ];
    let plain = [
        ("sign_in_codes_expiry", "sign_in_codes", vec!["expires_at"]),
        ("sessions_expiry", "sessions", vec!["expires_at"]),
        ("join_tokens_cluster", "join_tokens", vec!["cluster_id", "id"]),
        ("agents_org", "agents", vec!["org_id", "id"]),
        ("agents_cluster", "agents", vec!["cluster_id", "id"]),
        ("enrolment_attempts_cluster", "enrolment_attempts", vec!["cluster_id", "id"]),
        ("idempotency_keys_expiry", "idempotency_keys", vec!["expires_at"]),
    ];
    let unique =
        unique.into_iter().map(|(name, table, columns)| index(name, table, &columns).unique().take());
    unique.chain(plain.into_iter().map(|(name, table, columns)| index(name, table, &columns))).collect()
}
