//! The control plane of Culvert.

pub mod app;
pub mod config;
pub mod domain;
mod edge;
mod gateway;
mod ops;
pub mod store;
pub mod supervise;
pub mod telemetry;
