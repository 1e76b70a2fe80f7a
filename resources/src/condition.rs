//! Condition types, and the sentence that says why something is not ready.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of conditions, as they stand in `status.conditions[].type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The spec is one that can be carried out; else the reason names the field.
    Accepted,
    /// What it needs in the cluster is there: storage class, quota, image, Secret.
    Preflight,
    /// All of its objects exist as wished.
    Provisioned,
    /// A login and a write succeeded within the last probe periods.
    Available,
    /// Something is being changed.
    Progressing,
    /// What runs is what the spec says.
    UpToDate,
    /// The last backups succeeded.
    BackupHealthy,
    /// The newest recoverable point is young enough.
    RecoveryPointFresh,
    /// No volume is near its end.
    StorageHealthy,
    /// Credentials exist and work.
    CredentialsValid,
    /// Certificates exist and are not near their end.
    TlsReady,
    /// A change waits for the maintenance window.
    MaintenancePending,
    /// Deletion waits for something; the message says for what.
    DeletionBlocked,
    /// A target can be written, read, listed and deleted from.
    Reachable,
    /// A backup or restore has ended well.
    Complete,
    /// A backup or restore has ended badly; it is not tried again.
    Failed,
}

impl ConditionType {
    /// The word in the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Preflight => "Preflight",
            Self::Provisioned => "Provisioned",
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::UpToDate => "UpToDate",
            Self::BackupHealthy => "BackupHealthy",
            Self::RecoveryPointFresh => "RecoveryPointFresh",
            Self::StorageHealthy => "StorageHealthy",
            Self::CredentialsValid => "CredentialsValid",
            Self::TlsReady => "TLSReady",
            Self::MaintenancePending => "MaintenancePending",
            Self::DeletionBlocked => "DeletionBlocked",
            Self::Reachable => "Reachable",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// The deepest cause why something is not ready, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Stable code, such as `image_pull` or `no_storage_class`.
    pub code: String,
    /// The cause in one sentence.
    pub message: String,
    /// Who can mend it.
    pub who: WhoCanFix,
    /// What to do next, in one sentence.
    pub next: String,
    /// The object in which the cause was seen, as `Kind/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

/// Who can mend a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhoCanFix {
    /// Whoever owns the data service.
    Developer,
    /// Whoever owns the cluster.
    PlatformOperator,
    /// Whoever owns the object store.
    StorageOwner,
    /// Whoever runs the control plane.
    VendorOperator,
    /// Nobody needs to: it is under way and ends by itself.
    Nobody,
}
