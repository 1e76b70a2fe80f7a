//! Real instances of PostgreSQL under a real API server's Lease: what they live through, and what is lost by it.

mod failover;
mod one;
mod rig;
