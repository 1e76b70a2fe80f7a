//! Rows as they lie in the tables; private to the store.
//!
//! Times are milliseconds since the Unix epoch, so that both databases keep and
//! compare them exactly alike; ids are UUIDs; structured values are JSON text.

pub(in crate::store) mod agent;
pub(in crate::store) mod agent_session;
pub(in crate::store) mod api_token;
pub(in crate::store) mod attempt;
pub(in crate::store) mod audit_event;
pub(in crate::store) mod authority;
pub(in crate::store) mod backup_key;
pub(in crate::store) mod backup_target;
pub(in crate::store) mod certificate;
pub(in crate::store) mod cluster;
pub(in crate::store) mod data_key;
pub(in crate::store) mod data_service;
pub(in crate::store) mod idempotency_key;
pub(in crate::store) mod join_token;
pub(in crate::store) mod observed_cluster;
pub(in crate::store) mod observed_object;
pub(in crate::store) mod operation;
pub(in crate::store) mod organisation;
pub(in crate::store) mod project;
pub(in crate::store) mod replica;
pub(in crate::store) mod replica_news;
pub(in crate::store) mod session;
pub(in crate::store) mod setting;
pub(in crate::store) mod sign_in_code;
pub(in crate::store) mod target_placement;
pub(in crate::store) mod template;
pub(in crate::store) mod user;
