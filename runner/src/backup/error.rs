//! Why a Job did not do its work.

use culvert_pki::stream::StreamError;
use culvert_resources::Failure;
use thiserror::Error;

use super::manifest::ManifestError;
use crate::pack::PackError;
use crate::storage::Fault;

/// Why a Job did not do its work.
#[derive(Debug, Error)]
pub enum JobError {
    /// The target.
    #[error(transparent)]
    Target(#[from] Fault),
    /// A stream.
    #[error(transparent)]
    Pack(PackError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The engine refused, or its program failed.
    #[error("{message}")]
    Engine {
        /// Stable code.
        code: &'static str,
        /// What happened.
        message: String,
        /// What to do.
        hint: &'static str,
        /// Whether another attempt may succeed.
        passes: bool,
    },
    /// The cluster's API.
    #[error("the cluster's API: {0}")]
    Kubernetes(#[from] Box<kube::Error>),
    /// The configuration of the Job.
    #[error("{0}")]
    Configuration(String),
    /// Somebody asked for it to end.
    #[error("it was cancelled")]
    Cancelled,
    /// The pod is being ended.
    #[error("the pod was ended before its work was done")]
    Ended,
}

impl From<kube::Error> for JobError {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

impl From<PackError> for JobError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Target(fault) => Self::Target(fault),
            PackError::Cancelled => Self::Cancelled,
            PackError::Engine(message) => Self::engine("dump_failed", message),
            other => Self::Pack(other),
        }
    }
}

impl JobError {
    /// The engine failed in a way that may pass.
    pub fn engine(code: &'static str, message: impl Into<String>) -> Self {
        Self::Engine {
            code,
            message: message.into(),
            hint: "read the message and the engine's log; it is tried again",
            passes: true,
        }
    }

    /// The engine failed in a way that somebody has to mend.
    pub fn engine_stuck(code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self::Engine { code, message: message.into(), hint, passes: false }
    }

    /// Whether another attempt may succeed with nobody doing anything.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Target(fault) | Self::Manifest(ManifestError::Target(fault)) => fault.code.passes(),
            Self::Engine { passes, .. } => *passes,
            Self::Kubernetes(_) | Self::Ended | Self::Pack(PackError::Broken | PackError::Sink(_)) => true,
            Self::Pack(_) | Self::Manifest(_) | Self::Configuration(_) | Self::Cancelled => false,
        }
    }

    /// For a status, with the step that was under way.
    #[must_use]
    pub fn failure(&self, step: &str) -> Failure {
        let (code, hint) = match self {
            Self::Target(fault) => return fault.failure(step),
            Self::Manifest(error) => return error.failure(step),
            Self::Engine { code, hint, .. } => (*code, *hint),
            Self::Pack(error) => pack_row(error),
            Self::Kubernetes(_) => {
                ("api_unavailable", "check the API server and the rights of the ServiceAccount")
            }
            Self::Configuration(_) => {
                ("job_configuration", "see the message; the operator writes the configuration")
            }
            Self::Cancelled => ("cancelled", "start another one when it is wanted"),
            Self::Ended => ("pod_ended", "nothing: it is tried again"),
        };
        Failure {
            step: step.to_owned(),
            code: code.to_owned(),
            message: self.to_string(),
            hint: hint.to_owned(),
        }
    }
}

fn pack_row(error: &PackError) -> (&'static str, &'static str) {
    match error {
        PackError::Damaged { .. } => ("backup_damaged", "restore another backup"),
        PackError::Cipher { source: StreamError::OtherKey { .. }, .. } => {
            ("key_missing", "put the organisation's encryption-key into the target's Secret")
        }
        PackError::Cipher { .. } => ("backup_damaged", "restore another backup"),
        PackError::Sink(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            ("disk_full", "give the volume more room")
        }
        PackError::Sink(_) => ("write_failed", "read the message; it is tried again"),
        _ => ("stream_failed", "read the message; it is tried again"),
    }
}
