//! Reconciles data services in a cluster, with or without a control plane.
//!
//! The operator reads the intent of people ([`culvert_resources::DataService`]), decides what of it may be
//! released now (`data_service`), and makes what has been released come true (`database`). Between
//! the two stands the Database object: approval, maintenance windows, quota and preflight end there, so
//! that the second half never asks whether, only how.
//!
//! | room | job |
//! | --- | --- |
//! | [`config`], [`telemetry`], `ops`, `metrics` | the process |
//! | `leader` | one of several processes works; a lost Lease ends it |
//! | `reconcile` | what every controller stands on: apply, status, conditions, isolation, backoff, events |
//! | `data_plane` | what this cluster can run |
//! | `data_service` | from intent to release, and from what was found to a phase |
//! | `database` | from release to StatefulSet, Services, Secrets and the rest, and the order of changes |
//! | `driver` | what differs between engines |
//! | `why` | the deepest cause why something is not ready |
//! | `backup_target`, `backup`, `backup_schedule`, `restore` | backups and their way back |
//!
//! Mistakes a newcomer could make:
//! - to decide from a status field of ours: the status is an output; conditions are computed each time from
//!   what is seen in the cluster;
//! - to let anything that a new version of the operator computes otherwise reach a pod's template: an
//!   upgrade of the operator would restart every database ([`reconcile`] `kept`);
//! - to wait inside a reconcile: return with a requeue, the next round looks again;
//! - to return an error for something that only a person can mend: say it in a condition, errors are for
//!   what may succeed on the next try;
//! - to keep a finalizer for anything that a namespace being deleted cannot give any more.

mod backup;
mod backup_schedule;
mod backup_target;
pub mod config;
mod data_plane;
mod data_service;
mod database;
mod driver;
mod jobs;
mod leader;
mod metrics;
mod ops;
mod reconcile;
mod restore;
mod run;
pub mod telemetry;
mod timetable;
mod why;

pub use run::run;
