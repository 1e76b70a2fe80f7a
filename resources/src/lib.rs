//! The Kubernetes resources of Culvert's data services, as plain types.
//!
//! Group `data.culvert.dev`, version `v1alpha1`. The same types serve the operator that
//! reconciles them, the runner that reports on them, the agent that carries their status,
//! and the control plane that writes them. They hold no behaviour beyond what a reader of
//! the fields would expect; rules about engines and plans are in `culvert-engines`.
//!
//! | kind | who writes its spec | who writes its status |
//! | --- | --- | --- |
//! | [`DataPlane`] | the operator's chart, its owner | operator |
//! | [`DataService`] | a person or the control plane | operator |
//! | [`Database`] | operator, as the released form of a data service | operator |
//! | [`BackupTarget`] | a person or the control plane | operator, runner (probe), agent (credentials) |
//! | [`BackupSchedule`] | a person or the control plane | operator |
//! | [`Backup`] | a person, the control plane, a schedule's Job | runner (while it runs), operator |
//! | [`Restore`] | a person or the control plane | operator, runner (while it runs) |
//!
//! The definitions in `crds/` are made from these types (`make gen`), and a test compares.
//! What is checked by the API server stands beside the fields as CEL rules; what depends on
//! an engine's data is checked by the operator, which says so in the condition `Accepted`.
//!
//! Mistakes a newcomer could make:
//! - an enum that mixes unit variants with others: the schema would not be structural;
//! - a field without `default` or `Option` added later: stored objects would not parse;
//! - two writers for one field of a status: each has a field manager of its own
//!   ([`meta::manager`]), so a field that two apply flaps.

#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns repeat their type, and the lint takes each for an attribute of the same item"
)]
#![allow(
    unreachable_pub,
    reason = "the schema derive repeats each type inside a function, and the lint takes the copy for ours"
)]

mod backup;
mod backup_schedule;
mod backup_target;
mod condition;
mod data_plane;
mod data_service;
mod database;
pub mod instance;
pub mod job;
pub mod meta;
mod restore;

pub use backup::{
    Backup, BackupPhase, BackupSpec, BackupStatus, DeletionPolicy, Failure, Method, Progress,
    RecoverableRange, Trigger, Verified,
};
pub use backup_schedule::{BackupSchedule, BackupScheduleSpec, BackupScheduleStatus, Concurrency, Retention};
pub use backup_target::{
    AzureTarget, BackupTarget, BackupTargetSpec, BackupTargetStatus, FileShareTarget, GcsTarget, Probe,
    S3Target, SealedCredentials, SecretRef, TargetKind,
};
pub use condition::{ConditionType, WhoCanFix, Why};
pub use data_plane::{
    AgentAccount, Check, CheckResult, DataPlane, DataPlaneSpec, DataPlaneStatus, EngineImages, EngineState,
};
pub use data_service::{
    BackupPlan, DataService, DataServiceSpec, DataServiceStatus, DataSource, Deletion, DeletionStrategy,
    Endpoint, LastBackup, Maintenance, Network, PeerRule, PendingChange, Phase, Resources, SecretNames,
    Storage, TemplateRef, Tls, TlsMode, Topology, VersionStatus,
};
pub use database::{Archive, Database, DatabaseSpec, DatabaseStatus, Image, Member, Role};
pub use restore::{
    InPlace, Restore, RestoreOverrides, RestorePhase, RestoreSource, RestoreSpec, RestoreStatus, Step,
    StepState,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The definitions of all kinds, in the order in which they are installed.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        DataPlane::crd(),
        DataService::crd(),
        Database::crd(),
        BackupTarget::crd(),
        BackupSchedule::crd(),
        Backup::crd(),
        Restore::crd(),
    ]
}
