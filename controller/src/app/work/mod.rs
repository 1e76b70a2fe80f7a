//! Backups and restores: look, make, delete.
//!
//! What is shown is what the agents told of the objects in their clusters; nothing is kept
//! beside it. What is asked for is an operation whose intent holds the whole object, so that
//! whoever drives it sends exactly that, once, whatever happens in between.

mod backups;
mod look;
mod restores;
mod source;

pub use backups::NewBackup;
pub use look::{WorkFilter, WorkView};
pub use restores::{NewRestore, RestoreFrom};

use culvert_resources::meta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::{OperationView, operation_view};
use super::{App, Error};
use crate::domain::observed::{Observation, object_id};
use crate::domain::{
    BackupId, Caller, ClusterId, Namespace, ObjectKey, ObjectKind, Operation, OperationId, OperationKind,
    RestoreId, Subject, SubjectKind, Time, WorkName,
};
use crate::store::{ObservedFilter, OrgTx};

/// A backup or a restore with the operation that was begun for it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkBegun {
    /// The backup or restore.
    pub work: WorkView,
    /// The operation.
    pub operation: OperationView,
}

/// What is kept for a repetition.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    operation: OperationId,
}

/// What an operation on a backup or a restore keeps for its driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::app) struct WorkIntent {
    /// The object: to be made, or as it was when its deletion was asked for.
    pub(in crate::app) object: Value,
    /// Where it lies.
    pub(in crate::app) namespace: Namespace,
    /// Its name.
    pub(in crate::app) name: WorkName,
    /// The target that it needs there.
    pub(in crate::app) target: String,
    /// The object's uid, once it is known.
    pub(in crate::app) uid: Option<String>,
    /// The project that a restored data service counts in; absent when none is made.
    pub(in crate::app) project: Option<crate::domain::ProjectId>,
    /// Name of the data service it is about.
    pub(in crate::app) service: String,
}

impl WorkIntent {
    /// What an operation keeps; `None` when it is of another kind.
    pub(in crate::app) fn of(operation: &Operation) -> Option<Self> {
        serde_json::from_value(operation.intent.clone()).ok()
    }

    /// Writes it into the operation.
    pub(in crate::app) fn keep(&self, operation: &mut Operation) -> Result<(), Error> {
        operation.intent =
            serde_json::to_value(self).map_err(|error| Error::internal("an intent was not kept", error))?;
        Ok(())
    }

    /// The key of its object in the mirror.
    pub(in crate::app) fn key(&self, kind: ObjectKind) -> ObjectKey {
        ObjectKey { kind, namespace: self.namespace.to_string(), name: self.name.to_string() }
    }
}

/// The kind of object that an operation's subject is.
pub(in crate::app) fn kind_of(subject: SubjectKind) -> ObjectKind {
    if subject == SubjectKind::Restore { ObjectKind::Restore } else { ObjectKind::Backup }
}

/// The id of an object of this kind, as text.
pub(in crate::app) fn id_text(kind: ObjectKind, id: Uuid) -> String {
    match kind {
        ObjectKind::Restore => RestoreId::from(id).to_string(),
        _ => BackupId::from(id).to_string(),
    }
}

/// The object that shall be made.
fn manifest(kind: ObjectKind, intent: &WorkIntent, record: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
        "kind": kind.as_str(),
        "metadata": {
            "name": intent.name,
            "namespace": intent.namespace,
            "labels": {
                meta::SERVICE: intent.service,
                meta::RECORD: record,
                meta::MANAGED_BY: "culvert",
            },
        },
        "spec": spec,
    })
}

impl App {
    /// Writes the operation that makes an object, in the transaction of what it rests on.
    async fn begin_work(
        &self,
        tx: &OrgTx,
        caller: &Caller,
        (kind, cluster): (OperationKind, ClusterId),
        mut intent: WorkIntent,
        spec: Value,
    ) -> Result<Operation, Error> {
        let subject_kind =
            if kind == OperationKind::Restore { SubjectKind::Restore } else { SubjectKind::Backup };
        let object_kind = kind_of(subject_kind);
        let id = id_text(object_kind, Uuid::now_v7());
        intent.object = manifest(object_kind, &intent, &id, spec);
        let subject = Subject { kind: subject_kind, id, name: intent.name.to_string() };
        let by = caller.actor().name();
        let mut operation = Operation::new(kind, subject, Some(cluster), Value::Null, by, self.now());
        intent.keep(&mut operation)?;
        self.begin_operation(tx, operation).await
    }

    /// A name for something of a service that nothing there has: made of the service and the time.
    async fn fresh_name(
        &self,
        tx: &OrgTx,
        kind: SubjectKind,
        (cluster, namespace): (ClusterId, &Namespace),
        service: &str,
        now: Time,
    ) -> Result<WorkName, Error> {
        for second in 0..60 {
            let name: WorkName = format!("{service}-{}", now.unix_timestamp().saturating_add(second))
                .parse()
                .map_err(|error| Error::internal("no name could be made", error))?;
            if !self.is_taken(tx, kind, (cluster, namespace), &name).await? {
                return Ok(name);
            }
        }
        Err(Error::refused("name_taken", "too much was asked for at once", "try again in a minute"))
    }

    /// Whether there is something of this name, or soon will be.
    async fn is_taken(
        &self,
        tx: &OrgTx,
        kind: SubjectKind,
        (cluster, namespace): (ClusterId, &Namespace),
        name: &WorkName,
    ) -> Result<bool, Error> {
        let filter = ObservedFilter {
            kind: Some(kind_of(kind)),
            cluster: Some(cluster),
            namespace: Some(namespace.to_string()),
            name: Some(name.to_string()),
            ..ObservedFilter::default()
        };
        let there = !tx.observed(&filter, 1).await?.is_empty();
        Ok(there || tx.is_under_way(kind, name.as_str(), cluster).await?)
    }

    /// What waits for a backup or a restore that was told of is looked at now; whether there was
    /// one.
    pub(in crate::app) async fn works_told<'t>(
        &self,
        tx: &OrgTx,
        cluster: ClusterId,
        told: impl Iterator<Item = &'t Observation>,
    ) -> Result<bool, Error> {
        let mut any = false;
        for told in told.filter(|told| matches!(told.key.kind, ObjectKind::Backup | ObjectKind::Restore)) {
            any = true;
            let own = id_text(told.key.kind, object_id(cluster, told.uid));
            for subject in [Some(&own), told.record.as_ref()].into_iter().flatten() {
                tx.hurry_operations_on(subject, self.now()).await?;
            }
        }
        Ok(any)
    }

    /// What was begun, as it is now.
    async fn work_begun(&self, caller: &Caller, kept: &Kept) -> Result<WorkBegun, Error> {
        let store = self.store().org(caller);
        let operation = store.operation(kept.operation).await?.ok_or(Error::NotFound("operation"))?;
        let work = self.asked_work(&store, &operation).await?;
        Ok(WorkBegun { work, operation: operation_view(&store, operation).await? })
    }

    /// Tells the watchers of what was begun, and wakes whoever carries it out.
    async fn announce_work(&self, caller: &Caller, kept: &Kept) -> Result<WorkBegun, Error> {
        let begun = self.work_begun(caller, kept).await?;
        self.operation_changed(caller, begun.operation.operation.clone()).await?;
        self.placing();
        Ok(begun)
    }
}
