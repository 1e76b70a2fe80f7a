//! Why a reconcile failed. It is tried again; what only a person can mend is a condition, not an error.
use std::time::Duration;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be reached.
    #[error("{doing}: {source}")]
    Kube {
        /// What was tried, such as `applying Service orders`.
        doing: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("no end within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A defect of ours.
    #[error("a defect of the operator: {0}")]
    Panic(String),
    /// Something of ours could not be made.
    #[error("{0}")]
    Making(String),
}

impl Error {
    /// An error of the API server, with what was tried.
    pub(crate) fn kube(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Kube { doing: doing.into(), source: Box::new(source) }
    }

    /// Something of ours could not be made: a key, a certificate, a document.
    pub(crate) fn making(cause: impl std::fmt::Display) -> Self {
        Self::Making(cause.to_string())
    }

    /// The API server's answer, when it was one.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}
