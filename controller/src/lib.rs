//! The control plane of Culvert: a library, so that tests can run a whole controller in their
//! own process; the program is `main.rs`.
//!
//! Rooms, from the ground up; a room imports only from below, and `tests/rooms.rs` says so:
//!
//! - [`domain`]: plain values and rules; no clock, no store, no waiting.
//! - [`store`]: rows. A tenant's rows are out of reach without a caller.
//! - [`app`]: what the control plane does: authorise, decide, record.
//! - `api`, `agents`, `gateway`: the three doors, blind to each other, which translate between
//!   their wire and the app. [`tasks`]: what is done again and again.
//! - `console`: the pages that people use the API by; knows no other room.
//! - `edge`: the one port, its limits and TLS; knows no room behind it.
//! - [`run`]: wires all of it together, and takes it apart again.
//!
//! Beside them stand [`config`], [`supervise`] (the only place that starts tasks),
//! [`telemetry`] and `ops`.
//!
//! A request: listener → caller → handler (wire to domain) → app → store or tunnel, and back the
//! same way.

mod agents;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
mod console;
pub mod domain;
mod edge;
mod gateway;
mod ops;
pub mod run;
pub mod store;
pub mod supervise;
pub mod tasks;
pub mod telemetry;
