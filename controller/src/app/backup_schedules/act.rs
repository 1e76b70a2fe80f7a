//! Making, changing, running and deleting backup schedules, in their clusters.
//!
//! Every change names the version of the object that it was made from, so that of two people at
//! once the second is told, whether they come through here or with kubectl.

use culvert_resources::{BackupSchedule as Resource, BackupScheduleSpec, meta};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::look::named;
use super::{BackupScheduleView, NewBackupSchedule};
use crate::app::backup_targets::stamp;
use crate::app::data_services::only;
use crate::app::in_cluster::Trouble;
use crate::app::{App, Error, Once, require_admin, spec};
use crate::domain::observed::{ObjectKey, Observation};
use crate::domain::schedule::faults;
use crate::domain::template::merge;
use crate::domain::{
    Act, BackupScheduleId, BackupScheduleRef, Caller, ClusterId, DataService, Namespace, ObjectKind,
    ObservedObject, OrgId,
};

/// What is kept for a repetition.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    schedule: BackupScheduleId,
}

/// A schedule's object, as its cluster has it now.
struct Live {
    known: ObservedObject,
    api: Api<DynamicObject>,
    object: DynamicObject,
}

impl App {
    /// Makes a schedule in the cluster and namespace of its data service.
    pub async fn create_backup_schedule(
        &self,
        caller: &Caller,
        new: NewBackupSchedule,
        once: Option<&Once>,
    ) -> Result<BackupScheduleView, Error> {
        require_admin(caller)?;
        if let Some(earlier) = self.earlier(caller, once).await? {
            return self.backup_schedule(caller, &BackupScheduleRef::Id(earlier.schedule)).await;
        }
        let service = only(self.store().org(caller).data_services_named(&new.data_service).await?)?;
        if service.deleted_at.is_some() {
            let reason = format!("the data service {} is deleted", service.name);
            return Err(Error::refused("deleted", reason, "undelete it first"));
        }
        let name = new.name.map_or_else(|| service.name.to_string(), String::from);
        let spec = wanted(&service, &new.spec)?;
        self.have_target(caller, &spec, service.cluster, &service.namespace).await?;
        let api = self.schedules(caller.org(), service.cluster, service.namespace.as_str()).await?;
        let made = api.create(&by_us(), &manifest(&service, &name, &spec)?).await;
        let made = made.map_err(|error| taken(error, &name, &service))?;
        let told = observation(&made)?;
        let tx = self.store().write(caller).await?;
        // Between the look and the act somebody may have used the same key: they were told so.
        let kept = self.recall::<Kept>(caller, &tx, once, self.now()).await?;
        let object = self.keep_answer(&tx, service.cluster, told).await?;
        let id = BackupScheduleId::from(object.id);
        tx.audit(Act::BackupScheduleCreated, id, name, self.now()).await?;
        if kept.is_none() {
            self.remember(caller, &tx, once, &Kept { schedule: id }).await?;
        }
        tx.commit().await?;
        self.tell_answer(caller.org(), &object, false);
        self.schedule_view(&self.store().org(caller), object).await
    }

    /// Changes a schedule's spec. Its data service stays.
    pub async fn change_backup_schedule(
        &self,
        caller: &Caller,
        which: &BackupScheduleRef,
        patch: &Value,
    ) -> Result<BackupScheduleView, Error> {
        require_admin(caller)?;
        let live = self.live_schedule(caller, which).await?;
        let current = live.object.data.get("spec").cloned().unwrap_or_default();
        let spec = changed(&current, patch)?;
        let namespace: Option<Namespace> = live.known.told.key.namespace.parse().ok();
        if let Some(namespace) = namespace.filter(|_| current.get("target") != Some(&json!(spec.target))) {
            self.have_target(caller, &spec, live.known.cluster, &namespace).await?;
        }
        self.patch_schedule(caller, live, json!({"spec": patch}), Act::BackupScheduleChanged).await
    }

    /// Has one of a schedule's backups made now. The schedule's status names the request when it
    /// is answered: `asked` is then what `run_asked` is.
    pub async fn run_backup_schedule(
        &self,
        caller: &Caller,
        which: &BackupScheduleRef,
    ) -> Result<BackupScheduleView, Error> {
        require_admin(caller)?;
        let live = self.live_schedule(caller, which).await?;
        let change = json!({"metadata": {"annotations": {meta::RUN_NOW: stamp(self.now())}}});
        self.patch_schedule(caller, live, change, Act::BackupScheduleRun).await
    }

    /// Deletes a schedule. The backups that it made stay.
    pub async fn delete_backup_schedule(
        &self,
        caller: &Caller,
        which: &BackupScheduleRef,
    ) -> Result<BackupScheduleView, Error> {
        require_admin(caller)?;
        let Live { known, api, object } = self.live_schedule(caller, which).await?;
        let only = Preconditions { uid: object.metadata.uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        let left = match api.delete(&known.told.key.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            other => other.map_err(Trouble::from)?.left(),
        };
        let tx = self.store().write(caller).await?;
        let (object, gone) = match left {
            // A finalizer holds it until the operator has cleaned up.
            Some(object) => (self.keep_answer(&tx, known.cluster, observation(&object)?).await?, false),
            None => {
                tx.forget_observed(known.cluster, &known.told.key).await?;
                (known, true)
            }
        };
        let id = BackupScheduleId::from(object.id);
        tx.audit(Act::BackupScheduleDeleted, id, object.told.key.name.as_str(), self.now()).await?;
        tx.commit().await?;
        self.tell_answer(caller.org(), &object, gone);
        self.schedule_view(&self.store().org(caller), object).await
    }

    async fn earlier(&self, caller: &Caller, once: Option<&Once>) -> Result<Option<Kept>, Error> {
        // Not committed: the key is taken with the answer.
        let tx = self.store().write(caller).await?;
        self.recall(caller, &tx, once, self.now()).await
    }

    /// The target is wanted where the schedule is, from now on.
    async fn have_target(
        &self,
        caller: &Caller,
        spec: &BackupScheduleSpec,
        cluster: ClusterId,
        namespace: &Namespace,
    ) -> Result<(), Error> {
        let tx = self.store().write(caller).await?;
        self.want_target(&tx, &spec.target, cluster, namespace).await?;
        tx.commit().await?;
        self.placing();
        Ok(())
    }

    async fn schedules(
        &self,
        org: OrgId,
        cluster: ClusterId,
        namespace: &str,
    ) -> Result<Api<DynamicObject>, Error> {
        let client = self.in_cluster(org, cluster).await?;
        Ok(Api::namespaced_with(client, namespace, &ApiResource::erase::<Resource>(&())))
    }

    async fn live_schedule(&self, caller: &Caller, which: &BackupScheduleRef) -> Result<Live, Error> {
        let known = named(&self.store().org(caller), which).await?;
        let key = &known.told.key;
        let api = self.schedules(caller.org(), known.cluster, &key.namespace).await?;
        let object = api.get_opt(&key.name).await.map_err(Trouble::from)?;
        // A namesake that was made meanwhile is another schedule.
        let same = |object: &DynamicObject| object.metadata.uid == Some(known.told.uid.to_string());
        let object = object.filter(same).ok_or(Error::NotFound("backup schedule"))?;
        Ok(Live { known, api, object })
    }

    async fn patch_schedule(
        &self,
        caller: &Caller,
        live: Live,
        change: Value,
        act: Act,
    ) -> Result<BackupScheduleView, Error> {
        let Live { known, api, object } = live;
        let version = json!({"metadata": {"resourceVersion": object.metadata.resource_version}});
        // Not merged as patches are read: a null in a patch takes a field away.
        let mut patch = change;
        join(&mut patch, version);
        let name = &known.told.key.name;
        let params = PatchParams {
            field_manager: Some(meta::manager::CONTROLLER.to_owned()),
            ..PatchParams::default()
        };
        let object = api.patch(name, &params, &Patch::Merge(patch)).await;
        let object = object.map_err(|error| changed_meanwhile(error, name))?;
        let tx = self.store().write(caller).await?;
        let object = self.keep_answer(&tx, known.cluster, observation(&object)?).await?;
        tx.audit(act, BackupScheduleId::from(object.id), name.as_str(), self.now()).await?;
        tx.commit().await?;
        self.tell_answer(caller.org(), &object, false);
        self.schedule_view(&self.store().org(caller), object).await
    }
}

/// The spec of a new schedule: with its service, and the service's own target when none is given.
fn wanted(service: &DataService, given: &Value) -> Result<BackupScheduleSpec, Error> {
    if !given.is_object() {
        return Err(Error::invalid("spec", "invalid", "must be an object"));
    }
    if given.get("service").is_some_and(|name| name != service.name.as_str()) {
        return Err(Error::invalid("spec.service", "invalid", "must be the name of the data service"));
    }
    let own = service.spec.backup.as_ref().map(|plan| &plan.target);
    let base = json!({"service": service.name, "target": own});
    let whole = merge(&base, given);
    if whole.get("target").is_none_or(Value::is_null) {
        let detail = "must be given, as the data service has no backup target of its own";
        return Err(Error::invalid("spec.target", "missing", detail));
    }
    checked(&whole)
}

/// The spec that a change leads to.
fn changed(current: &Value, patch: &Value) -> Result<BackupScheduleSpec, Error> {
    if !patch.is_object() {
        return Err(Error::invalid("spec", "invalid", "must be an object"));
    }
    let spec = checked(&merge(current, patch))?;
    if current.get("service") != Some(&json!(spec.service)) {
        let detail = "the data service of a schedule cannot be changed: make another schedule";
        return Err(Error::invalid("spec.service", "immutable", detail));
    }
    Ok(spec)
}

fn checked(spec: &Value) -> Result<BackupScheduleSpec, Error> {
    let spec = spec::read(spec).map_err(Error::Invalid)?;
    let faults = faults(&spec);
    if faults.is_empty() { Ok(spec) } else { Err(Error::Invalid(faults)) }
}

fn by_us() -> PostParams {
    PostParams { field_manager: Some(meta::manager::CONTROLLER.to_owned()), ..PostParams::default() }
}

fn manifest(service: &DataService, name: &str, spec: &BackupScheduleSpec) -> Result<DynamicObject, Error> {
    let object = json!({
        "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
        "kind": "BackupSchedule",
        "metadata": {
            "name": name,
            "namespace": service.namespace,
            "labels": {meta::SERVICE: service.name, meta::MANAGED_BY: "culvert"},
        },
        "spec": spec,
    });
    serde_json::from_value(object).map_err(|error| Error::internal("a schedule was not written", error))
}

/// What the cluster answered, as its agent would tell it.
fn observation(object: &DynamicObject) -> Result<Observation, Error> {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    let metadata = &object.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name, uid) = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
    let generation = metadata.generation.unwrap_or_default();
    let key = ObjectKey { kind: ObjectKind::BackupSchedule, namespace, name };
    let json = serde_json::to_vec(&object).map_err(|e| Error::internal("an answer was not read", e))?;
    Observation::parse(key, &uid, generation, &json, false)
        .map_err(|error| Error::internal("the cluster's answer cannot be kept", error))
}

/// Puts the members of `more` into `object`, deeply.
fn join(object: &mut Value, more: Value) {
    match (object, more) {
        (Value::Object(object), Value::Object(more)) => {
            for (name, value) in more {
                join(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (object, more) => *object = more,
    }
}

fn taken(error: kube::Error, name: &str, service: &DataService) -> Error {
    match &error {
        kube::Error::Api(status) if status.is_already_exists() => {
            let namespace = &service.namespace;
            let reason = format!("there is a backup schedule {name} in the namespace {namespace} already");
            Error::refused("name_taken", reason, "choose another name, or change that schedule")
        }
        kube::Error::Api(status) if status.is_not_found() && status.message.starts_with("namespaces ") => {
            let reason = format!("the data service {} has not reached its cluster yet", service.name);
            Error::refused("not_there_yet", reason, "wait until it is ready, then try again")
        }
        _ => Trouble::from(error).into(),
    }
}

fn changed_meanwhile(error: kube::Error, name: &str) -> Error {
    match &error {
        kube::Error::Api(status) if status.code == 409 => {
            let reason = format!("somebody else changed the backup schedule {name} at the same time");
            Error::refused("changed_meanwhile", reason, "look at it, and send your change again")
        }
        _ => Trouble::from(error).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_keeps_its_nulls() {
        let mut patch =
            json!({"spec": {"retention": {"keepLast": null}}, "metadata": {"annotations": {"a": "b"}}});
        join(&mut patch, json!({"metadata": {"resourceVersion": "7"}}));
        assert_eq!(patch["spec"]["retention"]["keepLast"], Value::Null);
        assert!(patch["spec"]["retention"].as_object().unwrap().contains_key("keepLast"));
        assert_eq!(patch["metadata"], json!({"annotations": {"a": "b"}, "resourceVersion": "7"}));
    }

    #[test]
    fn a_change_is_read_whole_and_keeps_its_service() {
        let current = json!({"service": "orders", "target": "vault", "cron": "0 3 * * *",
            "retention": {"keepLast": 3, "keepAtLeast": 1}});
        let spec = changed(&current, &json!({"retention": {"keepLast": null, "maxAgeHours": 24}})).unwrap();
        assert_eq!((spec.retention.keep_last, spec.retention.max_age_hours), (None, Some(24)));
        for (patch, field) in [
            (json!({"service": "other"}), "spec.service"),
            (json!({"cron": "every day"}), "spec.cron"),
            (json!({"retentoin": {"keepLast": 1}}), "spec.retentoin"),
            (json!([]), "spec"),
        ] {
            let Err(Error::Invalid(faults)) = changed(&current, &patch) else { panic!("{patch}") };
            assert_eq!(faults[0].field, field, "{faults:?}");
        }
    }
}
