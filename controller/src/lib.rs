//! The control plane of Culvert.

pub mod domain;
pub mod store;
