//! Names that stand in the metadata of objects: group, labels, annotations, finalizers, managers.

/// API group of all kinds.
pub const GROUP: &str = "data.culvert.dev";
/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Label: name of the data service that an object belongs to.
pub const SERVICE: &str = "data.culvert.dev/service";
/// Label: name of the database that an object belongs to.
pub const DATABASE: &str = "data.culvert.dev/database";
/// Label on pods: `primary` or `replica`; written by the runner, selected by the Services.
pub const ROLE: &str = "data.culvert.dev/role";
/// Label: engine of a data service's object.
pub const ENGINE: &str = "data.culvert.dev/engine";
/// Label: name of the schedule that made a backup.
pub const SCHEDULE: &str = "data.culvert.dev/schedule";
/// Label: name of the backup target that an object belongs to.
pub const TARGET: &str = "data.culvert.dev/target";
/// Label: name of the backup that an object works for.
pub const BACKUP: &str = "data.culvert.dev/backup";
/// Label: name of the restore that an object works for.
pub const RESTORE: &str = "data.culvert.dev/restore";
/// Label: id of the control plane's record (`dsv_…`, `bkt_…`) that an object came from.
pub const RECORD: &str = "data.culvert.dev/record";
/// Label: `culvert` on every namespace, Secret and Job that we made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation: the control plane's revision of a record, a decimal number.
pub const REVISION: &str = "data.culvert.dev/revision";
/// Annotation on a retained volume claim: RFC 3339 time after which it is deleted.
pub const PURGE_AFTER: &str = "data.culvert.dev/purge-after";
/// Annotation on a Secret of credentials: generation of the target's credentials in it.
pub const CREDENTIAL_GENERATION: &str = "data.culvert.dev/credential-generation";
/// Annotation on a Backup or Restore: any value asks for it to be cancelled.
pub const CANCEL: &str = "data.culvert.dev/cancel";
/// Annotation on a BackupSchedule or BackupTarget: changed to ask for a run now.
pub const RUN_NOW: &str = "data.culvert.dev/run-now";
/// Annotation on the Lease of a primary: identity of the data that was made once. No data is made a second time.
pub const INITIALISED: &str = "data.culvert.dev/initialised";
/// Annotation on the Lease of a primary: pods of standbys that hold every acknowledged write, with commas between.
pub const SYNCHRONOUS: &str = "data.culvert.dev/synchronous";
/// Annotation on the Lease of a primary: pod that shall become primary. Written by the operator or a person, removed
/// by the pod that has become it.
pub const SWITCHOVER_TO: &str = "data.culvert.dev/switchover-to";
/// Annotation on the Lease of a primary: how far the log had come at the last renewal, as `2/50331648`.
pub const POSITION: &str = "data.culvert.dev/position";
/// Annotation on the Lease of a primary: uid of the pod that holds it.
pub const HOLDER_UID: &str = "data.culvert.dev/holder-uid";
/// Annotation on the Lease of a primary: `true` when the holder stops by itself before the Lease expires, so that
/// another may take it then; `false` when the holder is the only instance, and nobody else may.
pub const FENCED: &str = "data.culvert.dev/fenced";
/// Annotation on a DataService: allows deletion although `spec.deletion.protection` is set.
pub const DELETE_CONFIRMED: &str = "data.culvert.dev/delete-confirmed";
/// Annotation on a DataService: name of the Restore that exchanges its volumes. While it is there no instance runs,
/// as if `spec.stopped` were set.
pub const HELD: &str = "data.culvert.dev/held";
/// Annotation on a Backup that is being deleted: any value lets the object go and leaves what lies in the target.
pub const ABANDON: &str = "data.culvert.dev/abandon";
/// Annotation on a namespace made for the verification of a backup: `namespace/name/uid` of the Backup.
pub const VERIFIES: &str = "data.culvert.dev/verifies";

/// Finalizer of every kind that has to tidy up.
pub const FINALIZER: &str = "data.culvert.dev/finalizer";

/// Field managers of server-side apply, one for each controller.
pub mod manager {
    /// Controller of data services.
    pub const DATA_SERVICE: &str = "culvert-operator/data-service";
    /// Controller of databases.
    pub const DATABASE: &str = "culvert-operator/database";
    /// Controller of backup targets.
    pub const TARGET: &str = "culvert-operator/backup-target";
    /// Controller of schedules.
    pub const SCHEDULE: &str = "culvert-operator/backup-schedule";
    /// Controller of backups.
    pub const BACKUP: &str = "culvert-operator/backup";
    /// Controller of restores.
    pub const RESTORE: &str = "culvert-operator/restore";
    /// Controller of the data plane.
    pub const DATA_PLANE: &str = "culvert-operator/data-plane";
    /// The runner, beside an engine or in a Job.
    pub const RUNNER: &str = "culvert-runner";
    /// The agent.
    pub const AGENT: &str = "culvert-agent";
    /// The control plane, acting through the tunnel.
    pub const CONTROLLER: &str = "culvert-controller";
}
