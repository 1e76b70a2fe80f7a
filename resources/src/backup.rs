//! `Backup`: one backup.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Why;

/// One backup. Its spec cannot be changed. It does not belong to its service: deleting the service leaves it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    shortname = "bkp",
    category = "culvert",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    doc = "One backup of a data service.",
    validation = Rule::new("size(self.metadata.name) <= 52").message("the name of a backup has at most 52 characters"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.storedBytes"),
    printcolumn(name = "Verified", type_ = "date", json_path = ".status.verified.at"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.service == oldSelf.service && self.target == oldSelf.target && self.method == oldSelf.method && self.trigger == oldSelf.trigger").message("a backup cannot be changed"),
)]
pub struct BackupSpec {
    /// A DataService of the same namespace.
    pub service: String,
    /// A BackupTarget of the same namespace.
    pub target: String,
    /// How.
    #[serde(default)]
    pub method: Method,
    /// Who asked for it.
    #[serde(default)]
    pub trigger: Trigger,
    /// The schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// When it shall be deleted; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// What deleting this object means for what lies in the target.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Restore it in a throwaway service afterwards, query it and time it.
    #[serde(default)]
    pub verify: bool,
    /// Give up after so many seconds.
    #[serde(default = "six_hours")]
    #[schemars(range(min = 60, max = 604800))]
    pub deadline_seconds: i64,
    /// Attempts before it has failed.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: i64,
}

fn six_hours() -> i64 {
    21600
}

fn three() -> i64 {
    3
}

/// How a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Files of the engine; with an archive of the log, the base of recovery to a point in time.
    #[default]
    Physical,
    /// The engine's own dump; can be restored into a newer major version.
    Logical,
}

/// Who asked for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody.
    #[default]
    Manual,
    /// A schedule.
    Schedule,
    /// The deletion of a service.
    Final,
    /// A restore in place, before it begins.
    PreRestore,
}

/// What deleting a Backup means for what lies in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is deleted too.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

/// Where a backup is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Waits for its Job.
    Pending,
    /// Runs.
    Running,
    /// Lies in the target, whole.
    Complete,
    /// Ended badly; nothing of it counts.
    Failed,
    /// Was cancelled; nothing of it counts.
    Cancelled,
    /// Is being deleted from the target.
    Deleting,
}

/// Progress of something long.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done, such as `copying files`.
    #[serde(default)]
    pub step: String,
    /// Bytes read so far.
    #[serde(default)]
    pub done_bytes: i64,
    /// Bytes to read, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// When this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Points in time to which a restore is possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverableRange {
    /// The earliest.
    pub from: Time,
    /// The latest; the end of the backup itself without an archive.
    pub until: Time,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Step that failed.
    pub step: String,
    /// Stable code.
    pub code: String,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do, in one sentence.
    #[serde(default)]
    pub hint: String,
}

/// That a backup has been restored and queried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// When.
    pub at: Time,
    /// Whether it succeeded.
    pub ok: bool,
    /// Seconds from the start of the restore to the first query: the shown recovery time.
    #[serde(default)]
    pub seconds: i64,
    /// What was found.
    #[serde(default)]
    pub message: String,
}

/// What is known of a backup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Attempts that have begun.
    #[serde(default)]
    pub attempt: i64,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended, well or badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Progress while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes of the engine's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Bytes that lie in the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// Folder below the target's prefix; a Restore can name it when this object is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of the manifest, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// Engine and exact version that it was made from, such as `postgresql 17.12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<String>,
    /// Whether what lies in the target is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Points in time to which it can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable: Option<RecoverableRange>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// That it has been restored and queried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}
