//! The driver for each engine, by the name in the configuration.
use std::sync::Arc;

use crate::engine::Engine;
use crate::postgresql::PostgreSql;
use crate::valkey::Valkey;

/// The driver of this name; none when this version of the runner has none.
#[must_use]
pub fn driver(name: &str) -> Option<Arc<dyn Engine>> {
    match name {
        "postgresql" => Some(Arc::new(PostgreSql)),
        "valkey" => Some(Arc::new(Valkey)),
        _ => None,
    }
}
