//! Data services: what is wanted, what is there, and the ways from one to the other.
//!
//! A change is written as record, claim and operation in one transaction and answered at once;
//! what happens in the cluster is the operation's affair ([`super::drive`]). What was seen of
//! the object is kept beside the record, so that a list costs no question to any cluster.
//!
//! The record holds what is wanted. Somebody who edits the object with kubectl makes the two
//! differ: `in_sync` is false then, a change that touches their fields is refused unless it is
//! forced, and [`super::App::adopt_data_service`] takes what is there as what is wanted.

mod change;
mod compare;
mod create;
mod delete;
mod look;
mod told;
mod witness;

pub use change::DataServiceChange;
pub use create::{DataServicePlan, NewDataService};
pub use delete::Deletion;
pub use look::DataServiceFilter;
pub(super) use look::only;
pub use witness::{Happened, Happenings, Log, LogQuery, TAIL_MAX};

pub(super) use change::may_change;
pub(super) use create::claim_of;

use serde::{Deserialize, Serialize};

use super::operations::OperationView;
use crate::domain::{ClusterName, DataService, DataServiceState, OperationId, ProjectName};

/// A data service as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct DataServiceView {
    /// Its record.
    pub service: DataService,
    /// Name of its project.
    pub project_name: ProjectName,
    /// Name of its cluster.
    pub cluster_name: ClusterName,
    /// What it is doing.
    pub state: DataServiceState,
    /// Whether what was seen may be out of date, as the cluster is not connected.
    pub stale: bool,
    /// Whether what is there is what is wanted; unknown before it was seen.
    pub in_sync: Option<bool>,
    /// The operation that is under way.
    pub operation: Option<OperationView>,
}

/// A data service with the operation that was begun for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// The data service.
    pub service: DataServiceView,
    /// The operation.
    pub operation: OperationView,
}

/// What is kept for a repetition.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    service: crate::domain::DataServiceId,
    operation: OperationId,
}
