//! Making and deleting backups.

use culvert_engines::catalogue;
use culvert_resources::{BackupSpec, DeletionPolicy, Method, Trigger};
use serde_json::Value;

use super::{Kept, WorkBegun, WorkIntent};
use crate::app::data_services::{may_change, only};
use crate::app::{App, Error, Once, require_admin};
use crate::domain::{
    Act, BackupRef, BackupTargetRef, Caller, DataService, DataServiceRef, ObjectKind, Operation,
    OperationKind, Subject, SubjectKind, Time, WorkName,
};
use crate::store::OrgTx;

/// How long an attempt to make a backup may take, seconds, and how many there are.
const DEADLINE_SECONDS: i64 = 21_600;
const ATTEMPTS: i64 = 3;

/// A backup that somebody wants now.
#[derive(Debug, Clone)]
pub struct NewBackup {
    /// Of which data service.
    pub data_service: DataServiceRef,
    /// Where it goes; where the service's own backups go when absent.
    pub target: Option<String>,
    /// How; as the engine does it best when absent.
    pub method: Option<Method>,
    /// Restore it on trial afterwards.
    pub verify: bool,
    /// Its name; made of service and time when absent.
    pub name: Option<WorkName>,
    /// When it shall be deleted.
    pub expires_at: Option<Time>,
}

impl App {
    /// Begins a backup of a data service.
    pub async fn create_backup(
        &self,
        caller: &Caller,
        new: NewBackup,
        once: Option<&Once>,
    ) -> Result<WorkBegun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.work_begun(caller, &kept).await;
        }
        let service = only(tx.data_services_named(&new.data_service).await?)?;
        may_change(&tx, &service).await?;
        let target = target_of(&tx, &new, &service).await?;
        let spec = spec_of(&new, &service, target.clone(), now)?;
        self.want_target(&tx, &target, service.cluster, &service.namespace).await?;
        let name = self.name_of_backup(&tx, &new, &service, now).await?;
        let intent = WorkIntent {
            object: Value::Null,
            namespace: service.namespace.clone(),
            name,
            target,
            uid: None,
            project: None,
            service: service.name.to_string(),
        };
        let place = (OperationKind::Backup, service.cluster);
        let operation = self.begin_work(&tx, caller, place, intent, spec).await?;
        let detail = format!("{} of {}", operation.subject.name, service.id);
        tx.audit(Act::BackupCreated, &operation.subject.id, detail, now).await?;
        let kept = Kept { operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce_work(caller, &kept).await
    }

    async fn name_of_backup(
        &self,
        tx: &OrgTx,
        new: &NewBackup,
        service: &DataService,
        now: Time,
    ) -> Result<WorkName, Error> {
        let place = (service.cluster, &service.namespace);
        let Some(name) = &new.name else {
            return self.fresh_name(tx, SubjectKind::Backup, place, service.name.as_str(), now).await;
        };
        if self.is_taken(tx, SubjectKind::Backup, place, name).await? {
            let reason = format!("there is a backup {name} in the namespace {}", service.namespace);
            return Err(Error::refused("name_taken", reason, "choose another name, or leave it out"));
        }
        Ok(name.clone())
    }

    /// Begins the deletion of a backup, and of what lies in its target unless that shall stay.
    pub async fn delete_backup(
        &self,
        caller: &Caller,
        which: &BackupRef,
        once: Option<&Once>,
    ) -> Result<WorkBegun, Error> {
        require_admin(caller)?;
        let now = self.now();
        let store = self.store().org(caller);
        let found = self.find_work(&store, ObjectKind::Backup, which).await;
        let tx = self.store().write(caller).await?;
        if let Some(kept) = self.recall::<Kept>(caller, &tx, once, now).await? {
            drop(tx);
            return self.work_begun(caller, &kept).await;
        }
        let seen = found?;
        let id = super::id_text(ObjectKind::Backup, seen.id);
        let subject = Subject { kind: SubjectKind::Backup, id, name: seen.told.key.name.clone() };
        if let Some(active) =
            tx.active_operations_of(std::slice::from_ref(&subject.id)).await?.into_iter().next()
        {
            drop(tx);
            return self.work_begun(caller, &Kept { operation: active.id }).await;
        }
        let text = |path: &str| seen.told.object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let unreadable = |error| Error::internal("a backup's place was not read", error);
        let intent = WorkIntent {
            namespace: seen.told.key.namespace.parse().map_err(unreadable)?,
            name: seen.told.key.name.parse().map_err(unreadable)?,
            target: text("/spec/target").to_owned(),
            uid: Some(seen.told.uid.to_string()),
            project: None,
            service: text("/spec/service").to_owned(),
            object: seen.told.object.clone(),
        };
        let (kind, by) = (OperationKind::DeleteBackup, caller.actor().name());
        let mut operation = Operation::new(kind, subject, Some(seen.cluster), Value::Null, by, now);
        intent.keep(&mut operation)?;
        let operation = self.begin_operation(&tx, operation).await?;
        tx.audit(Act::BackupDeleted, &operation.subject.id, &operation.subject.name, now).await?;
        let kept = Kept { operation: operation.id };
        self.remember(caller, &tx, once, &kept).await?;
        tx.commit().await?;
        self.announce_work(caller, &kept).await
    }
}

/// The name of the target that a backup goes to.
async fn target_of(tx: &OrgTx, new: &NewBackup, service: &DataService) -> Result<String, Error> {
    let Some(text) = &new.target else {
        return service.spec.backup.as_ref().map(|plan| plan.target.clone()).ok_or_else(|| {
            let detail = "the data service has no target of its own: name one";
            Error::invalid("target", "missing", detail)
        });
    };
    named_target(tx, text).await
}

/// The name of the target that a text names: one of ours by id or name, or one that somebody made
/// in the cluster.
pub(super) async fn named_target(tx: &OrgTx, text: &str) -> Result<String, Error> {
    let which: BackupTargetRef = text.parse().map_err(|_| Error::NotFound("backup target"))?;
    match (tx.backup_target(&which).await?, which) {
        (Some(target), _) => Ok(target.name.to_string()),
        (None, BackupTargetRef::Name(name)) => Ok(name.to_string()),
        (None, BackupTargetRef::Id(_)) => Err(Error::NotFound("backup target")),
    }
}

fn spec_of(new: &NewBackup, service: &DataService, target: String, now: Time) -> Result<Value, Error> {
    if new.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::invalid("expires_at", "invalid", "must be in the future"));
    }
    let spec = BackupSpec {
        service: service.name.to_string(),
        target,
        method: method_of(new, service)?,
        trigger: Trigger::Manual,
        schedule: None,
        expires_at: new.expires_at.map(kubernetes_time).transpose()?,
        deletion_policy: DeletionPolicy::Delete,
        verify: new.verify,
        deadline_seconds: DEADLINE_SECONDS,
        attempts: ATTEMPTS,
    };
    serde_json::to_value(spec).map_err(|error| Error::internal("a spec was not written", error))
}

/// How the backup is made: with the engine's files where that is possible.
fn method_of(new: &NewBackup, service: &DataService) -> Result<Method, Error> {
    let Some(engine) = catalogue().engine(&service.spec.engine) else {
        return Ok(new.method.unwrap_or_default());
    };
    match new.method {
        Some(method) if !engine.methods.contains(&method) => {
            let detail = format!("{} cannot be backed up in this way", engine.title);
            Err(Error::invalid("method", "unsupported", detail))
        }
        Some(method) => Ok(method),
        None if engine.methods.contains(&Method::Physical) => Ok(Method::Physical),
        None => Ok(Method::Logical),
    }
}

/// A moment as Kubernetes' objects hold it: whole seconds.
pub(super) fn kubernetes_time(
    at: Time,
) -> Result<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time, Error> {
    k8s_openapi::jiff::Timestamp::from_second(at.unix_timestamp())
        .map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time)
        .map_err(|error| Error::internal("a time was not written", error))
}
