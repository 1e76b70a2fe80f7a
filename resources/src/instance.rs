//! What the operator tells the runner beside an engine: one file, `instance.json`, in a ConfigMap.
//!
//! The file is mounted at [`CONFIG_DIR`]; the kubelet brings a change of it within a minute, and the
//! runner carries the change out (reload), or waits for the operator to restart the pod. Secrets are
//! mounted beside it, each in its own folder, and are never in this file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data_service::TlsMode;
use crate::job::TargetConfig;

/// Folder of the ConfigMap; the file is `instance.json` in it.
pub const CONFIG_DIR: &str = "/etc/culvert/instance";
/// Folder of the Secret with passwords: `admin-password`, `owner-password`, `replication-password`,
/// `monitor-password`.
pub const CREDENTIALS_DIR: &str = "/etc/culvert/credentials";
/// Folder of the Secret with `tls.crt`, `tls.key`, `ca.crt` of the server.
pub const TLS_DIR: &str = "/etc/culvert/tls";
/// Folder of the Secret of the archive's target.
pub const ARCHIVE_DIR: &str = "/etc/culvert/archive";
/// Folder of the Secret of the source's target, while a new service is filled.
pub const SOURCE_DIR: &str = "/etc/culvert/source";
/// Folder of the file share, when a target is one.
pub const SHARE_DIR: &str = "/var/lib/culvert/share";
/// Folder of the volume. The engine's files are in `data` below it.
pub const VOLUME_DIR: &str = "/var/lib/culvert/data";
/// Folder (an `emptyDir`) into which the init container copies the runner.
pub const BIN_DIR: &str = "/opt/culvert/bin";
/// Folder (an `emptyDir` in memory) for sockets and for files with passwords that must not stay on a volume.
pub const RUN_DIR: &str = "/run/culvert";
/// Environment of the pod, by the downward API: `metadata.name`.
pub const POD_NAME_VAR: &str = "POD_NAME";
/// Environment of the pod, by the downward API: `metadata.uid`. A container that starts anew in the same pod may
/// go on as primary at once; another pod of the same name waits until the Lease has expired.
pub const POD_UID_VAR: &str = "POD_UID";
/// Port of the runner's own HTTP: `/livez`, `/readyz`, `/status` (JSON, [`InstanceStatus`]), `/metrics`.
pub const RUNNER_PORT: u16 = 9180;

/// What an instance shall be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfig {
    /// The engine.
    pub engine: String,
    /// The driver.
    pub driver: String,
    /// Exact version.
    pub version: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the Database: the StatefulSet, the Lease (`<name>-primary`) and the headless Service
    /// (`<name>-pods`) are named after it.
    pub database: String,
    /// uid of the Database.
    pub uid: String,
    /// Port of the engine.
    pub port: u16,
    /// Instances that are wanted.
    pub replicas: i32,
    /// A commit waits for one standby.
    pub synchronous: bool,
    /// Name of the owner's user and of the first database in the engine.
    pub owner: String,
    /// Every parameter that is set.
    pub parameters: BTreeMap<String, String>,
    /// Whether connections without TLS are refused.
    pub tls: TlsMode,
    /// Where the log is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveConfig>,
    /// What a new service is filled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceConfig>,
    /// Seconds for which a holder of the primary's Lease may go without renewing it.
    pub lease_seconds: i32,
    /// Bytes that were asked for the volume. A volume that is a folder of a larger disk has no other bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<i64>,
}

/// Where the log is archived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveConfig {
    /// The target.
    pub target: TargetConfig,
    /// Folder of this service below the target's prefix.
    pub path: String,
}

/// What a new service is filled from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceConfig {
    /// Name of the Restore, whose status the runner writes (`progress`, steps `fetch` and `recover`, `reached`).
    pub restore: String,
    /// The target.
    pub target: TargetConfig,
    /// Folder that holds the `manifest.json`, below the target's prefix.
    pub path: String,
    /// SHA-256 of the manifest, when the Backup told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// RFC 3339; to the end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<String>,
}

/// What an instance tells at `/status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// `primary`, `replica`, or `starting`.
    pub role: String,
    /// What it does now, such as `initialising`, `restoring`, `running`, `following`.
    pub doing: String,
    /// Exact version that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether a login and a write (a read on a replica) succeeded in the last probe.
    pub healthy: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<crate::Why>,
    /// SHA-256 of the `instance.json` that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
    /// Parameters that are set and wait for a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
    /// `credentials` Secret in force: its annotation-independent SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_digest: Option<String>,
    /// Bytes behind the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Whether commits of the primary wait for this standby.
    #[serde(default)]
    pub synchronous: bool,
    /// How far the log has come here: timeline and offset, as `2/50331648`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Identity of the data: the engine's own id of it, the same on all instances of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_identity: Option<String>,
    /// Bytes of data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Bytes of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_bytes: Option<i64>,
    /// Free bytes of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
    /// RFC 3339: end of the newest archived segment of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_until: Option<String>,
    /// Why archiving fails now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_problem: Option<String>,
    /// RFC 3339: when the server's certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends: Option<String>,
}
