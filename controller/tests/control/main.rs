//! The control plane from its store to its API, on real databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops"
)]

mod access;
mod backup_schedules;
mod backup_targets;
mod backups;
mod bootstrap;
mod data_services;
mod enrolment;
mod events;
mod figures;
mod fixture;
mod gateway;
mod mirror;
mod postgres;
mod presence;
mod projects;
mod requests;
mod rest;
mod store;
mod templates;
