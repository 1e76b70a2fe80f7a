//! `BackupTarget`: where backups go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Why;

/// Where backups go. Exactly one of `s3`, `azure`, `gcs`, `fileShare` is given.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "BackupTarget",
    plural = "backuptargets",
    shortname = "btgt",
    category = "culvert",
    namespaced,
    status = "BackupTargetStatus",
    derive = "PartialEq",
    doc = "Where backups go: a bucket or a file share.",
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name of a backup target has at most 40 characters"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".status.kind"),
    printcolumn(name = "Reachable", type_ = "string", json_path = ".status.conditions[?(@.type=='Reachable')].status"),
    printcolumn(name = "Checked", type_ = "date", json_path = ".status.probe.at"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why.message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.s3), has(self.azure), has(self.gcs), has(self.fileShare)].filter(x, x).size() == 1").message("give exactly one of s3, azure, gcs, fileShare"))]
pub struct BackupTargetSpec {
    /// S3 or what speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Target>,
    /// Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureTarget>,
    /// Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsTarget>,
    /// A volume of this cluster, such as an NFS share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_share: Option<FileShareTarget>,
    /// Folder inside the bucket or share; everything of ours lies below it.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('..') && size(self) <= 512").message("a prefix is a relative path without .."))]
    pub prefix: String,
    /// Secret with the credentials and the encryption key. Keys: `access-key-id`, `secret-access-key`,
    /// `session-token` (S3); `account-key` or `sas-token` (Azure); `service-account.json` (GCS);
    /// `encryption-key` (32 bytes in base64; backups are not encrypted without it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// PEM certificates to trust besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Proxy, as `http://host:port`; the data plane's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Credentials sealed to the agent of this cluster, which opens them into the Secret above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedCredentials>,
    /// Seconds between two checks of the target; 0 checks on change only.
    #[serde(default = "half_an_hour")]
    #[schemars(range(min = 0, max = 86400))]
    pub check_every_seconds: i64,
}

fn half_an_hour() -> i64 {
    1800
}

/// The kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TargetKind {
    /// S3.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
    /// A file share.
    FileShare,
}

impl BackupTargetSpec {
    /// The kind, when exactly one is given.
    #[must_use]
    pub fn kind(&self) -> Option<TargetKind> {
        match (&self.s3, &self.azure, &self.gcs, &self.file_share) {
            (Some(_), None, None, None) => Some(TargetKind::S3),
            (None, Some(_), None, None) => Some(TargetKind::Azure),
            (None, None, Some(_), None) => Some(TargetKind::Gcs),
            (None, None, None, Some(_)) => Some(TargetKind::FileShare),
            _ => None,
        }
    }
}

/// S3 or what speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Target {
    /// Bucket.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// Region.
    #[serde(default = "us_east_1")]
    pub region: String,
    /// Endpoint, as `https://host:port`; Amazon's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Bucket in the path instead of the host name.
    #[serde(default)]
    pub path_style: bool,
    /// Allow an endpoint with plain `http://`.
    #[serde(default)]
    pub allow_http: bool,
}

impl Default for S3Target {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            region: us_east_1(),
            endpoint: None,
            path_style: false,
            allow_http: false,
        }
    }
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

/// Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureTarget {
    /// Storage account.
    #[schemars(length(min = 1))]
    pub account: String,
    /// Container.
    #[schemars(length(min = 1))]
    pub container: String,
    /// Endpoint; Azure's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Allow an endpoint with plain `http://`.
    #[serde(default)]
    pub allow_http: bool,
}

/// Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsTarget {
    /// Bucket.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// Endpoint; Google's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Allow an endpoint with plain `http://`.
    #[serde(default)]
    pub allow_http: bool,
}

/// A volume of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileShareTarget {
    /// PersistentVolumeClaim of the same namespace; must be mountable by several pods.
    #[schemars(length(min = 1))]
    pub claim: String,
}

/// A Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Credentials that only the agent of this cluster can open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SealedCredentials {
    /// Counts the changes of the credentials, from 1.
    pub generation: i64,
    /// Which of the agent's keys it is sealed to: the first 16 hexadecimal digits of the SHA-256 of the public key.
    pub key_id: String,
    /// HPKE (RFC 9180) output in base64, encapsulated key first. The plaintext is a JSON object of Secret keys and
    /// values; the associated data is `culvert-target/v1|<namespace>/<name>|<secret>|<generation>`.
    pub ciphertext: String,
}

impl SealedCredentials {
    /// What the ciphertext is bound to; it opens with exactly this as associated data.
    #[must_use]
    pub fn place(namespace: &str, name: &str, secret: &str, generation: i64) -> String {
        format!("culvert-target/v1|{namespace}/{name}|{secret}|{generation}")
    }
}

/// What is known of a target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTargetStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Kind of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TargetKind>,
    /// Generation of the sealed credentials that the agent has written to the Secret. The agent's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_generation: Option<i64>,
    /// Why the agent could not open the sealed credentials. The agent's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_error: Option<String>,
    /// The last check. The runner's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Why it is not reachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// What a check of a target found: it writes, reads, lists and deletes an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// When.
    pub at: Time,
    /// Generation of the spec that was checked.
    pub generation: i64,
    /// Generation of the credentials that were used; 0 when the Secret does not tell.
    #[serde(default)]
    pub credential_generation: i64,
    /// The changed value of the run-now annotation that this check answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Whether all of it succeeded.
    pub ok: bool,
    /// The step that failed: `connect`, `authenticate`, `write`, `read`, `list`, `delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Why it failed, for the owner of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Whether the bucket keeps old versions, when it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versioning: Option<bool>,
    /// How far the store's clock is ahead of ours, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Milliseconds that all of it took.
    #[serde(default)]
    pub took_ms: i64,
}
