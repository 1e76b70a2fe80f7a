//! The steps of operations on backups and restores.
//!
//! What an object says is taken from the mirror: an operation that ended has an object that a
//! list shows. The cluster itself is asked only to send, to delete, and to tell an object that
//! is gone from one that was not told of yet.

use culvert_resources::{Backup, BackupTarget, Restore, meta};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::ApiResource;
use serde_json::Value;

use super::data_services::{check, make_namespace};
use crate::app::in_cluster::Trouble;
use crate::app::work::{WorkIntent, kind_of};
use crate::app::{App, Error};
use crate::domain::backup::{backup_went, progress, restore_went};
use crate::domain::operation::Went;
use crate::domain::{
    BackupTargetRef, Caller, ClusterId, Failure, ObjectKind, Operation, OperationKind, TargetName,
};

/// What a step works on.
pub(super) struct Work {
    pub(super) kind: ObjectKind,
    pub(super) cluster: ClusterId,
    pub(super) intent: WorkIntent,
    /// The id under which it was asked for, as the object's label has it.
    pub(super) record: String,
}

impl Work {
    pub(super) fn of(operation: &Operation) -> Result<Self, Trouble> {
        let broken = || {
            let next = "ask for what you want anew";
            Trouble::Never(Failure::new("broken_intent", "the operation's intent cannot be read", next))
        };
        let intent = WorkIntent::of(operation).ok_or_else(broken)?;
        let cluster = operation.cluster.ok_or_else(broken)?;
        let record = operation.subject.id.clone();
        Ok(Self { kind: kind_of(operation.subject.kind), cluster, intent, record })
    }

    pub(super) fn objects(&self, client: kube::Client) -> Api<DynamicObject> {
        let kind = match self.kind {
            ObjectKind::Restore => ApiResource::erase::<Restore>(&()),
            _ => ApiResource::erase::<Backup>(&()),
        };
        Api::namespaced_with(client, self.intent.namespace.as_str(), &kind)
    }

    /// Whether an object is the one that was asked for here.
    pub(super) fn is_ours(&self, object: &DynamicObject) -> bool {
        match &self.intent.uid {
            Some(uid) => object.metadata.uid.as_ref() == Some(uid),
            None => {
                object.metadata.labels.as_ref().and_then(|labels| labels.get(meta::RECORD))
                    == Some(&self.record)
            }
        }
    }

    fn title(&self) -> String {
        format!("{} {}/{}", self.kind.as_str(), self.intent.namespace, self.intent.name)
    }
}

impl App {
    pub(super) async fn work_step(
        &self,
        caller: &Caller,
        operation: &mut Operation,
        step: &str,
    ) -> Result<Went, Trouble> {
        let work = Work::of(operation)?;
        let cluster = work.cluster;
        let client = || self.in_cluster(caller.org(), cluster);
        match (step, operation.kind) {
            ("check", _) => check(&client().await?).await,
            ("target", _) => self.target_at_hand(caller, &work, client().await?).await,
            ("send", OperationKind::DeleteBackup) => ask_to_delete(&work, client().await?).await,
            ("send", _) => send(operation, work, client().await?).await,
            ("gone", _) => self.work_gone(caller, &work).await,
            ("record", _) => self.take_on(caller, &work).await,
            _ => self.watch_work(caller, operation, &work, step).await,
        }
    }

    /// Whether the target is where it is needed.
    async fn target_at_hand(
        &self,
        caller: &Caller,
        work: &Work,
        client: kube::Client,
    ) -> Result<Went, Trouble> {
        let (namespace, name) = (work.intent.namespace.as_str(), work.intent.target.as_str());
        let targets: Api<BackupTarget> = Api::namespaced(client, namespace);
        if targets.get_opt(name).await?.is_some() {
            return Ok(Went::Done(format!("BackupTarget {namespace}/{name}")));
        }
        let store = self.store().org(caller);
        let ours = match name.parse::<TargetName>() {
            Ok(name) => store.backup_target(&BackupTargetRef::Name(name)).await?,
            Err(_) => None,
        };
        let Some(ours) = ours else {
            let said = format!("there is no BackupTarget {namespace}/{name}, and none of this name here");
            let next = "make it, then retry: culvert backup-target create";
            return Ok(Went::Refused(Failure::new("no_target", said, next)));
        };
        let placements = store.placements_of(ours.id).await?;
        let trouble = placements
            .into_iter()
            .find(|placement| {
                placement.cluster == work.cluster && placement.namespace == work.intent.namespace
            })
            .map(|placement| placement.trouble)
            .filter(|trouble| !trouble.is_empty());
        Ok(Went::Waiting(trouble.unwrap_or_else(|| format!("the target {name} is on its way there"))))
    }

    /// What the object says of the step.
    async fn watch_work(
        &self,
        caller: &Caller,
        operation: &mut Operation,
        work: &Work,
        step: &str,
    ) -> Result<Went, Trouble> {
        let Some(object) = self.told_of(caller, work).await? else {
            let known = work.objects(self.in_cluster(caller.org(), work.cluster).await?);
            return Ok(match known.get_opt(work.intent.name.as_str()).await? {
                Some(object) if work.is_ours(&object) => {
                    Went::Waiting("the cluster's agent has not told of it yet".to_owned())
                }
                _ => Went::Refused(deleted_by_hand(work)),
            });
        };
        let part = |name: &str| object.get(name).cloned().unwrap_or_default();
        let unreadable = || Went::Waiting("what the cluster tells of it cannot be read".to_owned());
        if work.kind == ObjectKind::Restore {
            let status: Option<culvert_resources::RestoreStatus> = status(part("status"));
            let Some(status) = status else { return Ok(unreadable()) };
            operation.progress = progress(status.progress.as_ref()).or(operation.progress.take());
            return Ok(restore_went(step, &status));
        }
        let status: Option<culvert_resources::BackupStatus> = status(part("status"));
        let Some((status, spec)) = status.zip(serde_json::from_value(part("spec")).ok()) else {
            return Ok(unreadable());
        };
        operation.progress = progress(status.progress.as_ref()).or(operation.progress.take());
        Ok(backup_went(step, &spec, &status))
    }

    /// The object, as the cluster's agent told it.
    async fn told_of(&self, caller: &Caller, work: &Work) -> Result<Option<Value>, Error> {
        let seen = self.observed_one(caller, work.cluster, &work.intent.key(work.kind)).await?;
        let ours = seen.filter(|seen| Some(seen.told.uid.to_string()) == work.intent.uid);
        Ok(ours.map(|seen| seen.told.object))
    }

    /// Waits until the object is gone, and is told to be.
    async fn work_gone(&self, caller: &Caller, work: &Work) -> Result<Went, Trouble> {
        let client = self.in_cluster(caller.org(), work.cluster).await?;
        let known = work.objects(client).get_opt(work.intent.name.as_str()).await?;
        if let Some(object) = known.filter(|object| work.is_ours(object)) {
            let why = object.data.pointer("/status/why/message").and_then(Value::as_str);
            return Ok(Went::Waiting(why.unwrap_or("the operator tidies up").to_owned()));
        }
        if self.told_of(caller, work).await?.is_some() {
            return Ok(Went::Waiting("the cluster's agent has not told that it is gone yet".to_owned()));
        }
        Ok(Went::Done(format!("{} is gone", work.title())))
    }

    /// Takes on the data service that a restore has made: it counts in its project, and can be
    /// changed here.
    async fn take_on(&self, caller: &Caller, work: &Work) -> Result<Went, Trouble> {
        let Some(project) = work.intent.project else {
            return Ok(Went::Skipped("it was there before".to_owned()));
        };
        let name = work.intent.service.parse().map_err(|_| {
            let next = "look at the restore in the cluster";
            Trouble::Never(Failure::new("broken_intent", "the name of the service cannot be read", next))
        })?;
        let store = self.store().org(caller);
        let Some(service) = store.data_service_at(work.cluster, &work.intent.namespace, &name).await? else {
            return Ok(Went::Waiting("the cluster's agent has not told of the data service yet".to_owned()));
        };
        if service.unmanaged {
            let ours = crate::domain::DataService { project, ..service.clone() };
            self.adopt_record(caller, ours).await?;
        }
        Ok(Went::Done(format!("it is the data service {}", service.id)))
    }
}

/// A status as the agent told it; one that is not there yet is empty.
fn status<S: serde::de::DeserializeOwned + Default>(told: Value) -> Option<S> {
    if told.is_null() { Some(S::default()) } else { serde_json::from_value(told).ok() }
}

fn deleted_by_hand(work: &Work) -> Failure {
    let said = format!("{} was deleted in the cluster by somebody else", work.title());
    Failure::new("deleted_by_hand", said, "ask for a new one")
}

/// Makes the object, once: one that is there already is ours or a stranger's.
async fn send(operation: &mut Operation, mut work: Work, client: kube::Client) -> Result<Went, Trouble> {
    make_namespace(&client, work.intent.namespace.as_str()).await?;
    let objects = work.objects(client);
    let wanted: DynamicObject = serde_json::from_value(work.intent.object.clone())
        .map_err(|error| Trouble::Passing(format!("the object cannot be read: {error}")))?;
    let params =
        PostParams { field_manager: Some(meta::manager::CONTROLLER.to_owned()), ..PostParams::default() };
    let made = match objects.create(&params, &wanted).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let known = objects.get(work.intent.name.as_str()).await?;
            if !work.is_ours(&known) {
                let said = format!("there is another {} in the cluster", work.title());
                let next = "ask again, with another name";
                return Ok(Went::Refused(Failure::new("name_in_use", said, next)));
            }
            known
        }
        other => other?,
    };
    work.intent.uid = made.metadata.uid;
    work.intent.keep(operation)?;
    Ok(Went::Done(format!("made {}", work.title())))
}

/// Asks the cluster to delete the object, by its uid: a namesake that was made meanwhile stays.
async fn ask_to_delete(work: &Work, client: kube::Client) -> Result<Went, Trouble> {
    let only = Preconditions { uid: work.intent.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match work.objects(client).delete(work.intent.name.as_str(), &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Ok(Went::Skipped("it is not there any more".to_owned()))
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(Went::Skipped("what is there under this name is another one, and stays".to_owned()))
        }
        other => {
            other.map(|_| Went::Done(format!("asked to delete {}", work.title()))).map_err(Trouble::from)
        }
    }
}
