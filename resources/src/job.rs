//! What the operator tells the runner in a Job: one file, `job.json`, in a ConfigMap or as argument of none.
//!
//! `culvert-runner job` reads it from [`JOB_DIR`]. Credentials are mounted, never in this file. The Job writes the
//! status of the object that it works for itself (field manager `culvert-runner`), so it ends right while the
//! operator is down.

use serde::{Deserialize, Serialize};

use crate::backup::{DeletionPolicy, Method};
use crate::backup_target::{AzureTarget, GcsTarget, S3Target};

/// Folder of the ConfigMap; the file is `job.json` in it.
pub const JOB_DIR: &str = "/etc/culvert/job";
/// Folder of the target's Secret.
pub const TARGET_DIR: &str = "/etc/culvert/target";
/// Environment variable with the name of the Job, from the pod's label `batch.kubernetes.io/job-name`. A CronJob's Job
/// is named `<cron job>-<unix minute of the due time>`, so every attempt knows the same due time.
pub const JOB_NAME: &str = "CULVERT_JOB_NAME";
/// Exit code of a Job whose failure another attempt cannot mend: wrong credentials, a corrupt backup, a spec that
/// cannot be carried out. The number is `EX_DATAERR` of `sysexits.h`.
///
/// A Job that fails, with this or any other code, leaves the JSON of a [`crate::Failure`] as termination message.
pub const EXIT_PERMANENT: i32 = 65;

/// How to reach a target. Exactly one of the kinds is given; a file share is mounted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetConfig {
    /// Name of the BackupTarget.
    pub name: String,
    /// S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Target>,
    /// Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureTarget>,
    /// Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsTarget>,
    /// Mount point of a file share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Folder inside the bucket or share.
    #[serde(default)]
    pub prefix: String,
    /// Folder with the target's Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// PEM certificates to trust besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Proxy, as `http://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// What a Job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum JobConfig {
    /// Makes a backup.
    Backup(BackupJob),
    /// Deletes what lies in a target.
    Prune(PruneJob),
    /// Checks a target.
    Probe(ProbeJob),
    /// Reads a manifest and checks all digests of a backup, or looks for the newest backup of a service.
    Inspect(InspectJob),
}

/// Makes a backup. The Job mounts [`TARGET_DIR`], [`crate::instance::CREDENTIALS_DIR`] (`admin-password`,
/// `replication-password`) and [`crate::instance::TLS_DIR`] (`ca.crt` only).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupJob {
    /// Namespace.
    pub namespace: String,
    /// Name of the Backup. Absent in a schedule's CronJob: the Job then makes the Backup itself, named by schedule
    /// and time (`<schedule>-<unix minute>`), which makes a second start harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Name of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Name of the data service.
    pub service: String,
    /// uid of the data service.
    pub service_uid: String,
    /// Engine.
    pub engine: String,
    /// How.
    pub method: Method,
    /// Host of the engine.
    pub host: String,
    /// Port of the engine.
    pub port: u16,
    /// Name of the owner's user and of its database.
    pub owner: String,
    /// The target.
    pub target: TargetConfig,
    /// Folder of the service below the target's prefix; the backup lies in `backups/<name>` below it, the log in
    /// `wal`.
    pub path: String,
    /// Whether the log is archived in the same folder, so that points in time can be reached.
    pub archived: bool,
    /// Seconds from the due time at which a scheduled run begins.
    #[serde(default)]
    pub jitter_seconds: i64,
    /// For the manifest: the spec of the data service, so that a bucket alone is enough to restore.
    pub service_spec: serde_json::Value,
    /// For a Backup that the Job makes itself.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Deletes what lies in a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneJob {
    /// Namespace.
    pub namespace: String,
    /// Name of the Backup whose finalizer waits.
    pub backup: String,
    /// The target.
    pub target: TargetConfig,
    /// Folder of the backup.
    pub path: String,
    /// Folder of the service's log: segments that no remaining backup needs go too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_path: Option<String>,
}

/// Checks a target: write, read, list, delete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeJob {
    /// Namespace.
    pub namespace: String,
    /// Name of the BackupTarget.
    pub name: String,
    /// Generation of its spec.
    pub generation: i64,
    /// Generation of the credentials in its Secret; 0 when the Secret does not tell. The check repeats it.
    #[serde(default)]
    pub credential_generation: i64,
    /// Value of the run-now annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The target.
    pub target: TargetConfig,
}

/// Looks at a backup that lies in a target. The Job's result is the JSON of [`Inspected`] in the termination message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectJob {
    /// Namespace.
    pub namespace: String,
    /// Name of the Restore that asks.
    pub restore: String,
    /// The target.
    pub target: TargetConfig,
    /// Folder of a backup, or of a service.
    pub path: String,
    /// RFC 3339: the newest backup of a service that ended before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<String>,
    /// SHA-256 that the manifest shall have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
}

/// What [`InspectJob`] found; at most 4096 bytes of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// Folder of the backup below the target's prefix.
    pub path: String,
    /// SHA-256 of its manifest.
    pub manifest_digest: String,
    /// Engine.
    pub engine: String,
    /// Exact version.
    pub version: String,
    /// How it was made.
    pub method: Method,
    /// Bytes of the engine's data.
    pub data_bytes: i64,
    /// RFC 3339.
    pub recoverable_from: String,
    /// RFC 3339.
    pub recoverable_until: String,
    /// The spec of the data service that it was made from.
    pub service_spec: serde_json::Value,
    /// Why it cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<crate::Failure>,
}
