//! `Fault`: why a spec is refused, in words that lead to a better one.

use serde::{Deserialize, Serialize};

/// One reason why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{field}: {message}")]
pub struct Fault {
    /// Path of the field, such as `spec.parameters.work_mem`.
    pub field: String,
    /// Stable code, such as `unknown_parameter`.
    pub code: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do, in one sentence.
    pub next: String,
}

impl Fault {
    pub(crate) fn new(
        field: impl Into<String>,
        code: &str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), code: code.to_owned(), message: message.into(), next: next.into() }
    }
}
