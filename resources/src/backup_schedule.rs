//! `BackupSchedule`: when backups are made, and how long they are kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::Method;
use crate::condition::Why;

/// When backups are made, and how long they are kept.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "data.culvert.dev",
    version = "v1alpha1",
    kind = "BackupSchedule",
    plural = "backupschedules",
    shortname = "bsched",
    category = "culvert",
    namespaced,
    status = "BackupScheduleStatus",
    derive = "PartialEq",
    doc = "When backups of a data service are made, and how long they are kept.",
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name of a backup schedule has at most 40 characters"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Cron", type_ = "string", json_path = ".spec.cron"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Last-Success", type_ = "date", json_path = ".status.lastSuccess"),
    printcolumn(name = "Misses", type_ = "integer", json_path = ".status.missesInARow"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// A DataService of the same namespace.
    pub service: String,
    /// A BackupTarget of the same namespace.
    pub target: String,
    /// Cron expression with five fields.
    #[x_kube(validation = Rule::new("self.matches('^([^ ]+ +){4}[^ ]+$')").message("a cron expression has five fields: minute hour day month weekday"))]
    pub cron: String,
    /// Time zone, such as `Europe/Vienna`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// A run begins up to so many seconds late, by a number fixed for each schedule, so that not all begin at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub jitter_seconds: i64,
    /// How.
    #[serde(default)]
    pub method: Method,
    /// How long they are kept.
    #[serde(default)]
    pub retention: Retention,
    /// Every n-th backup is restored in a throwaway service, queried and timed; 0 for none.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub verify_every: i64,
    /// What happens when the one before still runs.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// No run is begun.
    #[serde(default)]
    pub suspended: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// How long backups are kept. A backup goes when it is beyond `keepLast` and older than `maxAgeHours`
/// (whichever of the two is given), and never when it is among the `keepAtLeast` newest that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Keep so many of the newest that succeeded; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub keep_last: Option<i64>,
    /// Keep what is younger; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_age_hours: Option<i64>,
    /// Never go below so many.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10000))]
    pub keep_at_least: i64,
    /// Only say what would be deleted, in the schedule's status.
    #[serde(default)]
    pub dry_run: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_last: None, max_age_hours: None, keep_at_least: one(), dry_run: false }
    }
}

fn one() -> i64 {
    1
}

/// What happens when a run is due and the one before still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Concurrency {
    /// The new one is left out.
    #[default]
    Forbid,
    /// Both run.
    Allow,
}

/// What the operator found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When a backup of it last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// When the next is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
    /// Runs since the last success that failed or did not begin.
    #[serde(default)]
    pub misses_in_a_row: i64,
    /// Backups that exist.
    #[serde(default)]
    pub kept: i64,
    /// Backups that retention would delete now; with `dryRun` they stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_delete: Vec<String>,
    /// The value of the run-now annotation that was answered last by a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}
