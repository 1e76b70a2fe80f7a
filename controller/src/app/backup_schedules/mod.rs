//! Backup schedules: objects of the clusters, which the control plane makes and changes there at
//! once, through the tunnel, and shows from the mirror.
//!
//! There is no record beside the object. A schedule is one small object that the API server takes
//! or refuses within a moment, so there is nothing to wait for: a change is answered when the
//! cluster has it, and refused when the cluster is away. What is shown of it later is what the
//! agent told, as old as the mirror is.

mod act;
mod look;

pub use look::BackupScheduleFilter;

use serde_json::Value;

use crate::domain::{ClusterName, DataServiceId, DataServiceRef, ObservedObject, ScheduleName};

/// A schedule as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupScheduleView {
    /// What is known of its object.
    pub object: ObservedObject,
    /// Name of its cluster.
    pub cluster_name: ClusterName,
    /// The record of the data service that it is for, if there is one.
    pub data_service: Option<DataServiceId>,
    /// Whether what is known may be out of date, as the cluster is not connected.
    pub stale: bool,
}

/// A new schedule.
#[derive(Debug, Clone)]
pub struct NewBackupSchedule {
    /// The data service whose backups it makes.
    pub data_service: DataServiceRef,
    /// Its name; the data service's when absent.
    pub name: Option<ScheduleName>,
    /// Its spec, without the service.
    pub spec: Value,
}

impl BackupScheduleView {
    /// A part of its object.
    #[must_use]
    pub fn part(&self, pointer: &str) -> Option<&Value> {
        self.object.told.object.pointer(pointer).filter(|value| !value.is_null())
    }
}
