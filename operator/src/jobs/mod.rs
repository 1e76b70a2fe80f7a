//! Jobs that run the runner: backups, checks of targets, pruning, looking at a manifest.
//!
//! Whatever takes longer than a reconcile, or touches the customer's store, is done by a Job, for three reasons: it goes
//! on while the operator is down, its memory and rights are its own, and only the pods of one namespace ever see
//! the credentials of that namespace's targets. The operator itself reads no key of a target's Secret.
//!
//! | file | job |
//! | --- | --- |
//! | [`names`] | names of everything, the same for the same work |
//! | [`reach`] | a BackupTarget as the runner wants it, with the volumes that it needs |
//! | [`build`] | Job, CronJob and ConfigMap as values |
//! | [`access`] | the ServiceAccount of these Jobs, with the least that they need |
//! | [`outcome`] | what became of a Job, from the Job, its pods and their events |
//! | [`causes`] | codes of failures, and who can mend them |
//! | [`run`] | makes, watches and ends Jobs |
//!
//! Mistakes a newcomer could make:
//! - a Job owned by the object whose finalizer waits for it: deletion in the foreground would delete it first;
//! - a name with a random part: an operator that stops between the creation and the note of it makes a second Job;
//! - to apply a Job again: its template cannot be changed, so it is created once and left alone;
//! - to believe a Job that is gone: it may have been deleted by hand, or by its time to live while we were down.

pub(crate) mod access;
pub(crate) mod build;
pub(crate) mod causes;
pub(crate) mod names;
pub(crate) mod outcome;
pub(crate) mod reach;
pub(crate) mod run;
