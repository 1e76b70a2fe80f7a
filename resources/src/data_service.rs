//! `DataService`: what a person wants to have.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::{Progress, RecoverableRange};
use crate::condition::Why;

/// What a person wants: an engine, a version, a size, and how it is kept.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "DataService",
    plural = "dataservices",
    shortname = "dsvc",
    category = "culvert",
    namespaced,
    status = "DataServiceStatus",
    derive = "PartialEq",
    doc = "A database that somebody wants to have: engine, version, size, and how it is kept.",
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of a data service has at most 40 characters, begins with a letter and has only lower-case letters, digits and dashes"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.running"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.readyReplicas"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.storage.size", priority = 1),
    printcolumn(name = "Last-Backup", type_ = "date", json_path = ".status.lastBackup.at", priority = 1),
    scale(spec_replicas_path = ".spec.topology.replicas", status_replicas_path = ".status.replicas")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.engine == oldSelf.engine").message("the engine of a data service cannot be changed"),
    validation = Rule::new("has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)").message("the source of a data service cannot be changed"),
)]
pub struct DataServiceSpec {
    /// The engine: `postgresql` or `valkey`.
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9-]{0,30}$')").message("an engine is a lower-case word"))]
    pub engine: String,
    /// A major version (`17`) for its newest release here, or an exact one (`17.12`).
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+){0,2}$')").message("a version is numbers with dots, such as 17 or 17.12"))]
    pub version: String,
    /// How many instances, and how they replicate.
    #[serde(default)]
    pub topology: Topology,
    /// CPU and memory of each instance.
    #[serde(default)]
    pub resources: Resources,
    /// The volume of each instance.
    #[serde(default)]
    pub storage: Storage,
    /// Parameters of the engine. Which are allowed, and which need a restart, is in the engine's catalogue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Who in the cluster may connect.
    #[serde(default)]
    pub network: Network,
    /// Encryption on the wire.
    #[serde(default)]
    pub tls: Tls,
    /// Where backups and the log archive go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPlan>,
    /// What the new service begins with; empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DataSource>,
    /// When changes that interrupt are made; at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Stopped: no instance runs, the volumes stay.
    #[serde(default)]
    pub stopped: bool,
    /// What deletion means.
    #[serde(default)]
    pub deletion: Deletion,
    /// Changed to have all instances restarted one after the other; an RFC 3339 time by habit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<String>,
    /// Changed to have new passwords and certificates made; an RFC 3339 time by habit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_rotated_at: Option<String>,
    /// The template that it was made from; for people, not for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateRef>,
}

/// Instances and replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.synchronous || self.replicas >= 2").message("synchronous replication needs at least 2 instances"))]
pub struct Topology {
    /// Instances, the primary included: 1 to 5.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,
    /// A commit waits for one standby; no acknowledged write is lost by a failover.
    #[serde(default)]
    pub synchronous: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self { replicas: 1, synchronous: false }
    }
}

fn one() -> i32 {
    1
}

/// CPU and memory of an instance. Memory is request and limit; CPU is the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// CPU, such as `500m`.
    #[serde(default = "cpu")]
    pub cpu: Quantity,
    /// Memory, such as `1Gi`; at least 128Mi.
    #[serde(default = "memory")]
    pub memory: Quantity,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: cpu(), memory: memory() }
    }
}

fn cpu() -> Quantity {
    Quantity("250m".to_owned())
}

fn memory() -> Quantity {
    Quantity("512Mi".to_owned())
}

/// The volume of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size; may only grow.
    #[serde(default = "size")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0").message("a volume cannot shrink: create a new service and restore into it"))]
    pub size: Quantity,
    /// Storage class; the cluster's default when absent. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The volume grows by itself up to this size when it is nearly full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_limit: Option<Quantity>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: size(), class: None, growth_limit: None }
    }
}

fn size() -> Quantity {
    Quantity("1Gi".to_owned())
}

/// Who in the cluster may connect.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Who may connect; pods of the same namespace when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<PeerRule>,
}

/// Pods that may connect.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerRule {
    /// Namespaces; the service's own when absent, all when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Pods; all of the namespaces when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<LabelSelector>,
}

/// Encryption on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Whether connections without TLS are refused.
    #[serde(default)]
    pub mode: TlsMode,
}

/// Whether connections without TLS are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Only TLS.
    #[default]
    Required,
    /// TLS for who wants it.
    Preferred,
}

/// Where backups and the log archive go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlan {
    /// A BackupTarget of the same namespace.
    pub target: String,
    /// Archive the write-ahead log there too, for recovery to any point in time.
    #[serde(default = "yes")]
    pub archive: bool,
    /// How old the newest recoverable point may be, in seconds, before `RecoveryPointFresh` is false.
    #[serde(default = "an_hour")]
    #[schemars(range(min = 60))]
    pub recovery_point_objective_seconds: i64,
}

fn yes() -> bool {
    true
}

fn an_hour() -> i64 {
    3600
}

/// What a new service begins with: what a Restore brings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// A Restore of the same namespace that fills this service.
    pub restore: String,
}

/// When changes that interrupt are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Start of the window as a cron expression with five fields.
    pub cron: String,
    /// Length of the window in minutes.
    #[serde(default = "two_hours")]
    #[schemars(range(min = 10, max = 1440))]
    pub minutes: i64,
    /// Time zone, such as `Europe/Vienna`.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn two_hours() -> i64 {
    120
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What deletion means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// Deletion waits until this is false, or the annotation `data.culvert.dev/delete-confirmed` is set.
    #[serde(default)]
    pub protection: bool,
    /// What happens to the data.
    #[serde(default)]
    pub strategy: DeletionStrategy,
    /// With `Retain` or `FinalBackup`: hours for which the volumes stay, so that the service can be
    /// undeleted. 0 keeps them until somebody deletes them (`Retain`) or deletes them at once (`FinalBackup`).
    #[serde(default = "three_days")]
    #[schemars(range(min = 0, max = 8760))]
    pub undelete_hours: i64,
}

impl Default for Deletion {
    fn default() -> Self {
        Self { protection: false, strategy: DeletionStrategy::default(), undelete_hours: three_days() }
    }
}

fn three_days() -> i64 {
    72
}

/// What happens to the data when a service is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionStrategy {
    /// The volumes stay for `undeleteHours`.
    #[default]
    Retain,
    /// A last backup is taken first; deletion waits for it.
    FinalBackup,
    /// The volumes go at once.
    Delete,
}

/// The template that a service was made from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// Its name.
    pub name: String,
    /// Its revision.
    #[serde(default)]
    pub revision: i64,
}

/// Where a data service is in its life. Computed from the conditions, never decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waits for what it needs.
    Pending,
    /// Is being made or changed.
    Progressing,
    /// A login and a write succeed.
    Ready,
    /// Works, with less than was asked for.
    Degraded,
    /// Does not work.
    Unavailable,
    /// Stopped on purpose.
    Stopped,
    /// Is being deleted.
    Deleting,
}

/// What the operator found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataServiceStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Instances that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Ready of wanted instances, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<String>,
    /// Why it is not ready; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Where to connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Names of the Secrets that hold credentials; never their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretNames>,
    /// Versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// Points in time to which a restore is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable: Option<RecoverableRange>,
    /// The newest backup that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Changes that wait, with what they will cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_changes: Vec<PendingChange>,
    /// What is being done now, such as `creating`, `rolling restart`, `failover`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_operation: Option<String>,
    /// Progress of a source that is being restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes of data, as the primary told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `primary` or `replicas`.
    pub name: String,
    /// DNS name inside the cluster.
    pub host: String,
    /// Port.
    pub port: i32,
}

/// Names of Secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretNames {
    /// Of the owner of the data: keys `username`, `password`, `database`, `host`, `port`, `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of the administrator: keys `username`, `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Certificate of the authority that signed the server's: key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Versions of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// What runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// A newer release that it could be upgraded to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
}

/// The newest backup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Name of the Backup.
    pub name: String,
    /// When it ended.
    pub at: Time,
    /// Whether it has been restored and queried.
    #[serde(default)]
    pub verified: bool,
}

/// A change that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// Field of the spec, such as `parameters.max_connections`.
    pub field: String,
    /// Value that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Value that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What it costs: `reload`, `rolling-restart`, `restart`, `none`.
    pub effect: String,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
}
