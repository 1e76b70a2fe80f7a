//! Stopping an operation that somebody cancelled: taking back what can be taken back.

use culvert_resources::{DataServiceSpec, meta};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::data_services::{Place, is_of};
use super::work::Work;
use crate::app::in_cluster::Trouble;
use crate::app::{App, Error};
use crate::domain::{
    BackupState, Caller, Claim, DataService, Operation, OperationKind, OperationState, SubjectKind,
};

/// How the attempt to stop ended.
enum Undone {
    /// It is stopped; what to say of it.
    Stopped(String),
    /// Not yet.
    Waiting(String),
    /// It cannot be stopped any more, and goes on.
    TooLate(String),
}

impl App {
    /// Stops a cancelled operation, or says why not yet.
    pub(super) async fn undo(&self, caller: &Caller, operation: &mut Operation) {
        let undone = match operation.subject.kind {
            SubjectKind::DataService => self.undo_data_service(caller, operation).await,
            SubjectKind::Backup | SubjectKind::Restore => self.undo_work(caller, operation).await,
        };
        let now = self.now();
        match undone {
            Ok(Undone::Stopped(message)) => operation.stopped(&message, now),
            Ok(Undone::TooLate(message)) => {
                operation.state = OperationState::Running;
                operation.went(crate::domain::operation::Went::Waiting(message), now);
            }
            Ok(Undone::Waiting(message)) => {
                operation.went(crate::domain::operation::Went::Waiting(message), now);
            }
            Err(Trouble::Never(failure)) => operation.stopped(&failure.message, now),
            Err(trouble) => operation.went(crate::domain::operation::Went::Waiting(trouble.to_string()), now),
        }
    }

    async fn undo_data_service(&self, caller: &Caller, operation: &Operation) -> Result<Undone, Trouble> {
        let service = self.subject_of(caller, operation).await?;
        let sent = operation.step("send").is_some_and(|step| step.started_at.is_some());
        match operation.kind {
            OperationKind::Create | OperationKind::Undelete if !sent => {
                let kept = operation.intent.get("kept_until").cloned().unwrap_or_default();
                self.mark_gone(caller, &service, serde_json::from_value(kept).unwrap_or_default()).await?;
                Ok(Undone::Stopped("nothing was sent; the quota is free again".to_owned()))
            }
            OperationKind::Create => self.take_back(caller, &service).await,
            OperationKind::Delete if !sent => Ok(Undone::Stopped("nothing was deleted".to_owned())),
            OperationKind::Delete => self.spare(caller, &service).await,
            _ if !sent => self.put_back(caller, operation, &service).await,
            _ => Ok(Undone::Stopped(
                "it was sent to the cluster, and goes on there; change it back with an update".to_owned(),
            )),
        }
    }

    /// Deletes what a creation had made already.
    async fn take_back(&self, caller: &Caller, service: &DataService) -> Result<Undone, Trouble> {
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let place = Place { service, client };
        let (objects, name) = (place.objects(), service.name.as_str());
        let known = objects.get_opt(name).await?.filter(|object| is_of(object, service.id));
        let Some(object) = known else {
            self.mark_gone(caller, service, None).await?;
            return Ok(Undone::Stopped(
                "nothing of it is in the cluster; the quota is free again".to_owned(),
            ));
        };
        if object.metadata.deletion_timestamp.is_none() {
            let preconditions = Preconditions { uid: object.metadata.uid, resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            objects.delete(name, &params).await?;
        }
        Ok(Undone::Waiting("what was made is being deleted".to_owned()))
    }

    /// Leaves a service alone whose deletion may not have been asked for yet.
    async fn spare(&self, caller: &Caller, service: &DataService) -> Result<Undone, Trouble> {
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let known = Place { service, client }.objects().get_opt(service.name.as_str()).await?;
        Ok(match known {
            Some(object) if object.metadata.deletion_timestamp.is_none() => {
                Undone::Stopped("nothing was deleted".to_owned())
            }
            _ => Undone::TooLate(
                "the cluster was asked to delete it, and that cannot be taken back".to_owned(),
            ),
        })
    }

    /// Makes the spec that was wanted before wanted again, unless it has changed since.
    async fn put_back(
        &self,
        caller: &Caller,
        operation: &Operation,
        service: &DataService,
    ) -> Result<Undone, Trouble> {
        let revision = operation.intent.get("revision").and_then(Value::as_u64);
        let before = operation.intent.get("before").cloned().unwrap_or_default();
        let before: Option<DataServiceSpec> = serde_json::from_value(before).ok();
        let (Some(before), true) = (before, revision == Some(service.revision)) else {
            return Ok(Undone::Stopped("nothing was sent; a later change stays".to_owned()));
        };
        let claim = Claim::of(&before).map_err(|error| Trouble::Passing(error.to_string()))?;
        let next = service.revision.saturating_add(1);
        let new = DataService { spec: before, revision: next, updated_at: self.now(), ..service.clone() };
        let tx = self.store().write(caller).await?;
        if !tx.change_data_service(&new, service.revision, claim).await? {
            return Err(Trouble::from(Error::refused("changed_meanwhile", "it was changed meanwhile", "")));
        }
        // What the cluster has is what is wanted again.
        if service.sent_revision.saturating_add(1) == service.revision {
            tx.sent_data_service(service.id, next).await?;
        }
        tx.commit().await?;
        self.publish_data_service(caller, service.id).await;
        Ok(Undone::Stopped("nothing was sent; what was wanted before is wanted again".to_owned()))
    }

    /// Has a backup or a restore stopped by the operator, which tidies up after it; or leaves a
    /// backup alone whose deletion was not asked for yet.
    async fn undo_work(&self, caller: &Caller, operation: &Operation) -> Result<Undone, Trouble> {
        if operation.step("send").is_none_or(|step| step.started_at.is_none()) {
            return Ok(Undone::Stopped("nothing was sent".to_owned()));
        }
        let work = Work::of(operation)?;
        let objects = work.objects(self.in_cluster(caller.org(), work.cluster).await?);
        let name = work.intent.name.as_str();
        let known = objects.get_opt(name).await?.filter(|object| work.is_ours(object));
        let Some(object) = known else {
            return Ok(Undone::Stopped("nothing of it is in the cluster".to_owned()));
        };
        if operation.kind == OperationKind::DeleteBackup {
            return Ok(spared(&object));
        }
        match BackupState::of(object.data.get("status").unwrap_or(&Value::Null)) {
            BackupState::Complete => return Ok(Undone::TooLate("it was complete already".to_owned())),
            BackupState::Failed | BackupState::Cancelled | BackupState::Deleting => {
                return Ok(Undone::Stopped("it has ended in the cluster; nothing of it counts".to_owned()));
            }
            BackupState::Pending | BackupState::Running => {}
        }
        let asked = object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(meta::CANCEL));
        if !asked {
            let change = json!({"metadata": {
                "uid": object.metadata.uid, "annotations": {meta::CANCEL: operation.id.to_string()}}});
            let params = PatchParams {
                field_manager: Some(meta::manager::CONTROLLER.to_owned()),
                ..PatchParams::default()
            };
            objects.patch(name, &params, &Patch::Merge(change)).await?;
        }
        Ok(Undone::Waiting("the operator was asked to stop it".to_owned()))
    }
}

/// What becomes of a deletion that somebody cancelled.
fn spared(object: &DynamicObject) -> Undone {
    if object.metadata.deletion_timestamp.is_none() {
        return Undone::Stopped("nothing was deleted".to_owned());
    }
    Undone::TooLate("the cluster was asked to delete it, and that cannot be taken back".to_owned())
}
