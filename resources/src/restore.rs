//! `Restore`: bringing a backup back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::{Failure, Progress};
use crate::condition::Why;
use crate::data_service::{BackupPlan, Resources, Storage, Topology};

/// Brings a backup back: into a new data service, or in place. Its spec cannot be changed.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "Restore",
    plural = "restores",
    shortname = "rst",
    category = "culvert",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    doc = "Brings a backup back, into a new data service or in place.",
    validation = Rule::new("size(self.metadata.name) <= 52").message("the name of a restore has at most 52 characters"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reached", type_ = "string", json_path = ".status.reached"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a restore cannot be changed: make a new one"),
)]
pub struct RestoreSpec {
    /// Name of the DataService that is made, or with `inPlace` of the one that is replaced.
    #[schemars(length(min = 1, max = 40))]
    pub service: String,
    /// What is brought back.
    pub source: RestoreSource,
    /// Bring it back to this moment; to the end of the archive, or of the backup without one, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<Time>,
    /// What the new service has otherwise than the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<RestoreOverrides>,
    /// Replace the data of an existing service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
    /// Give up after so many seconds.
    #[serde(default = "six_hours")]
    #[schemars(range(min = 60, max = 604800))]
    pub deadline_seconds: i64,
}

fn six_hours() -> i64 {
    21600
}

/// What is brought back: a Backup of this namespace, or a folder of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.backup) != has(self.path)").message("give either backup, or target and path"),
    validation = Rule::new("!has(self.path) || has(self.target)").message("a path needs its target"))]
pub struct RestoreSource {
    /// A Backup of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// A BackupTarget of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Folder below the target's prefix that holds a `manifest.json`, or that of a service, for its newest backup
    /// before the point in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What the new service has otherwise than the manifest says of the old one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOverrides {
    /// Version; the same major for a physical backup, the same or a newer one for a logical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Parameters that replace the old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Where the new service's own backups go; nowhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPlan>,
}

/// That an existing service is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InPlace {
    /// The uid of the DataService, as proof that this very one is meant.
    pub confirm: String,
    /// A Backup of the service that completed within the last hour, or empty to have one made first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_backup: Option<String>,
}

/// Where a restore is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// Waits.
    Pending,
    /// Runs.
    Running,
    /// The service answers with the data.
    Complete,
    /// Ended badly.
    Failed,
    /// Was cancelled.
    Cancelled,
}

/// State of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Left out, as it is not needed.
    Skipped,
}

/// One step of long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Stable name, such as `check-manifest`.
    pub name: String,
    /// State.
    pub state: StepState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// What is to say of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is known of a restore.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Steps: `check-manifest`, `prior-backup`, `create-service`, `fetch`, `recover`, `verify`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub steps: Vec<Step>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended, well or badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Progress of the fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The BackupTarget that it is fetched from. With `path` and `manifestDigest` all that an instance needs to fill
    /// itself; written before the service is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// SHA-256 of the manifest that was checked, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// The manifest that is restored, as folder below the target's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The moment that was reached, RFC 3339, or `end of backup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}
