//! Real instances of PostgreSQL under a real API server's Lease: what they live through, and what is lost by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod failover;
mod filled;
mod one;
mod rig;
