//! The steps of operations on data services.

use culvert_resources::{DataPlane, DataService as Resource, meta};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::observe::found;
use crate::app::App;
use crate::app::in_cluster::Trouble;
use crate::domain::data_service::Seen;
use crate::domain::operation::Went;
use crate::domain::{Caller, DataService, DataServiceId, Failure, Operation, OperationKind, Time};

/// What a step works on.
pub(in crate::app) struct Place<'a> {
    pub(in crate::app) service: &'a DataService,
    pub(in crate::app) client: kube::Client,
}

impl Place<'_> {
    pub(in crate::app) fn objects(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<Resource>(&());
        Api::namespaced_with(self.client.clone(), self.service.namespace.as_str(), &kind)
    }
}

impl App {
    pub(super) async fn data_service_step(
        &self,
        caller: &Caller,
        operation: &mut Operation,
        step: &str,
    ) -> Result<Went, Trouble> {
        let service = self.subject_of(caller, operation).await?;
        if operation.intent.get("never_sent") == Some(&Value::Bool(true)) {
            return self.leave_unsent(caller, operation, &service, step).await;
        }
        if step == "check"
            && let Some(waits) = self.waits_for_others(caller, operation).await?
        {
            return Ok(waits);
        }
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let place = Place { service: &service, client };
        match (step, operation.kind) {
            ("check", _) => check(&place.client).await,
            ("send", OperationKind::Delete) => ask_to_delete(&place, operation).await,
            ("send", _) => self.send(caller, operation, &place).await,
            ("gone", _) => self.gone(caller, operation, &place).await,
            _ => self.watch(caller, operation, &place, step).await,
        }
    }

    pub(super) async fn subject_of(
        &self,
        caller: &Caller,
        operation: &Operation,
    ) -> Result<DataService, Trouble> {
        let gone = || {
            let next = "there is nothing left to do";
            Trouble::Never(Failure::new("record_gone", "the data service's record is gone", next))
        };
        let id: DataServiceId = operation.subject.id.parse().map_err(|_| gone())?;
        self.store().org(caller).data_service(id).await?.ok_or_else(gone)
    }

    /// An earlier operation on the same thing goes first, and one that was ended finishes what
    /// it had begun.
    async fn waits_for_others(
        &self,
        caller: &Caller,
        operation: &Operation,
    ) -> Result<Option<Went>, Trouble> {
        let store = self.store().org(caller);
        let subject = operation.subject.id.clone();
        if store.others_at_work(&subject, operation.id, self.now()).await? {
            return Ok(Some(Went::Waiting(
                "an operation before this one finishes what it had begun".to_owned(),
            )));
        }
        let active = store.active_operations_of(&[subject]).await?;
        let first = active.iter().find(|other| other.id < operation.id);
        Ok(first.map(|first| Went::Waiting(format!("{} ({}) goes first", first.id, first.kind.as_str()))))
    }

    /// Deletes a service of which nothing ever reached its cluster.
    async fn leave_unsent(
        &self,
        caller: &Caller,
        operation: &Operation,
        service: &DataService,
        step: &str,
    ) -> Result<Went, Trouble> {
        if let Some(waits) = self.waits_for_others(caller, operation).await? {
            return Ok(waits);
        }
        if step == "gone" {
            self.mark_gone(caller, service, None).await?;
            return Ok(Went::Done("its quota is free again".to_owned()));
        }
        Ok(Went::Skipped("nothing of it was sent to the cluster".to_owned()))
    }

    /// Sends what is wanted now, whatever it was when the operation began.
    async fn send(
        &self,
        caller: &Caller,
        operation: &mut Operation,
        place: &Place<'_>,
    ) -> Result<Went, Trouble> {
        let (objects, name) = (place.objects(), place.service.name.as_str());
        let known = objects.get_opt(name).await?;
        let force = operation.intent.get("force") == Some(&Value::Bool(true));
        let stranger = known.as_ref().filter(|known| !is_of(known, place.service.id));
        if let Some(stranger) = stranger.filter(|_| !place.service.unmanaged && !force) {
            return Ok(Went::Refused(not_ours(place.service, stranger)));
        }
        if known.is_none() {
            make_namespace(&place.client, place.service.namespace.as_str()).await?;
        }
        let params = PatchParams::apply(meta::manager::CONTROLLER);
        let params = if force { params.force() } else { params };
        let sent = match objects
            .patch(name, &params, &Patch::Apply(manifest(place.service)))
            .await
            .map_err(Trouble::from)
        {
            Err(Trouble::Contested(said)) => return Ok(Went::Refused(contested(said))),
            other => other?,
        };
        let seen = self.saw(caller, place.service, &sent).await?;
        self.note_sent(caller, place.service).await?;
        remember(operation, seen.as_ref());
        let verb = if known.is_some() { "changed" } else { "made" };
        Ok(Went::Done(format!("{verb} DataService {}/{name}", place.service.namespace)))
    }

    async fn note_sent(&self, caller: &Caller, service: &DataService) -> Result<(), Trouble> {
        let tx = self.store().write(caller).await?;
        tx.sent_data_service(service.id, service.revision).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Looks at the object, and at what it means for a step that waits for it.
    async fn watch(
        &self,
        caller: &Caller,
        operation: &Operation,
        place: &Place<'_>,
        step: &str,
    ) -> Result<Went, Trouble> {
        let Some(object) = place.objects().get_opt(place.service.name.as_str()).await? else {
            let next = "retry to have it made again, or delete the data service";
            let said = "the DataService was deleted in the cluster by somebody else";
            return Ok(Went::Refused(Failure::new("deleted_by_hand", said, next)));
        };
        let Some(seen) = self.saw(caller, place.service, &object).await? else {
            return Ok(Went::Waiting("the cluster's answer cannot be read".to_owned()));
        };
        let generation = operation.intent.get("generation").and_then(Value::as_i64).unwrap_or_default();
        Ok(found(step, &seen, generation))
    }

    /// Waits until the object is gone; then the name and the claim are free.
    async fn gone(&self, caller: &Caller, operation: &Operation, place: &Place<'_>) -> Result<Went, Trouble> {
        let known = place.objects().get_opt(place.service.name.as_str()).await?;
        let asked = operation.intent.get("uid").and_then(Value::as_str);
        if let Some(object) =
            known.filter(|object| asked.is_none() || object.metadata.uid.as_deref() == asked)
        {
            let seen = self.saw(caller, place.service, &object).await?;
            return Ok(Went::Waiting(seen.map_or_else(String::new, |seen| blocked_by(&seen))));
        }
        let until = kept_until(operation, place.service, self.now());
        self.mark_gone(caller, place.service, until).await?;
        Ok(Went::Done(match until {
            Some(_) => "it is gone; its volumes are kept, and it can be undeleted".to_owned(),
            None => "it is gone, its volumes with it".to_owned(),
        }))
    }

    pub(super) async fn mark_gone(
        &self,
        caller: &Caller,
        service: &DataService,
        undelete_until: Option<Time>,
    ) -> Result<(), Trouble> {
        let tx = self.store().write(caller).await?;
        tx.data_service_gone(service.id, self.now(), undelete_until).await?;
        tx.commit().await?;
        self.publish_data_service(caller, service.id).await;
        Ok(())
    }

    /// Keeps what was seen, when it is new or the last look is long ago.
    pub(super) async fn saw(
        &self,
        caller: &Caller,
        service: &DataService,
        object: &DynamicObject,
    ) -> Result<Option<Seen>, Trouble> {
        let value = serde_json::to_value(object).unwrap_or_default();
        let Some(seen) = Seen::of(&value, self.now()) else { return Ok(None) };
        if service.seen.as_ref().is_some_and(|known| known.is_after(&seen)) {
            return Ok(Some(seen));
        }
        let known = service.seen.as_ref();
        let same = known.is_some_and(|known| known.same_as(&seen));
        if same && known.is_some_and(|known| seen.at - known.at < LOOK_KEPT) {
            return Ok(Some(seen));
        }
        let tx = self.store().write(caller).await?;
        tx.saw_data_service(service.id, Some(&seen)).await?;
        tx.commit().await?;
        if !same {
            self.publish_data_service(caller, service.id).await;
        }
        Ok(Some(seen))
    }
}

/// A look that shows nothing new is written down at most so often.
const LOOK_KEPT: time::Duration = time::Duration::seconds(30);

/// Asks the cluster for its data plane: whether it answers, and what it says of itself.
pub(super) async fn check(client: &kube::Client) -> Result<Went, Trouble> {
    let planes: Api<DataPlane> = Api::all(client.clone());
    let plane = planes.get_opt("default").await?.and_then(|plane| plane.status);
    let Some(status) = plane else {
        return Ok(Went::Done("the cluster answers; its operator has told nothing yet".to_owned()));
    };
    let version = status.operator_version.unwrap_or_default();
    Ok(Went::Done(format!("the cluster answers; operator {version}")))
}

/// Whether an object came from the record with this id.
pub(super) fn is_of(object: &DynamicObject, id: DataServiceId) -> bool {
    let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(meta::RECORD));
    label.is_some_and(|label| *label == id.to_string())
}

fn not_ours(service: &DataService, object: &DynamicObject) -> Failure {
    let record = object.metadata.labels.as_ref().and_then(|labels| labels.get(meta::RECORD));
    let whose = record.map_or_else(|| "made with kubectl".to_owned(), |id| format!("of the record {id}"));
    let said = format!(
        "there is a DataService {}/{} in the cluster already, {whose}",
        service.namespace, service.name
    );
    Failure::new("name_in_use", said, "choose another name, or adopt the one that is there")
}

fn contested(said: String) -> Failure {
    Failure::new(
        "hand_edited",
        said,
        "look at the difference, then adopt what is there or send yours by force",
    )
}

/// Makes the namespace, unless it is there; one that is there is left as it is.
pub(in crate::app) async fn make_namespace(client: &kube::Client, name: &str) -> Result<(), Trouble> {
    let namespaces = Api::<Namespace>::all(client.clone());
    if namespaces.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name, "labels": {meta::MANAGED_BY: "culvert"}}});
    let made: Namespace =
        serde_json::from_value(made).map_err(|error| Trouble::Passing(error.to_string()))?;
    let params =
        PostParams { field_manager: Some(meta::manager::CONTROLLER.to_owned()), ..PostParams::default() };
    match namespaces.create(&params, &made).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).map_err(Trouble::from),
    }
}

/// The object as the control plane wants it.
pub(in crate::app) fn manifest(service: &DataService) -> Value {
    json!({
        "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
        "kind": "DataService",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "labels": {meta::RECORD: service.id.to_string(), meta::MANAGED_BY: "culvert"},
            "annotations": {meta::REVISION: service.revision.to_string()},
        },
        "spec": service.spec,
    })
}

fn remember(operation: &mut Operation, seen: Option<&Seen>) {
    if let (Value::Object(intent), Some(seen)) = (&mut operation.intent, seen) {
        intent.insert("uid".to_owned(), json!(seen.uid));
        intent.insert("generation".to_owned(), json!(seen.generation));
    }
}

/// Asks the cluster to delete the object, by its uid: a namesake that was made meanwhile stays.
async fn ask_to_delete(place: &Place<'_>, operation: &mut Operation) -> Result<Went, Trouble> {
    let (objects, name) = (place.objects(), place.service.name.as_str());
    let Some(object) = objects.get_opt(name).await? else {
        return Ok(Went::Skipped("it is not there any more".to_owned()));
    };
    if !place.service.unmanaged && !is_of(&object, place.service.id) {
        return Ok(Went::Skipped(
            "what is there under this name is not of this record, and stays".to_owned(),
        ));
    }
    let uid = object.metadata.uid.clone();
    let change = last_will(operation);
    let manager =
        PatchParams { field_manager: Some(meta::manager::CONTROLLER.to_owned()), ..PatchParams::default() };
    objects.patch(name, &manager, &Patch::Merge(change)).await?;
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match objects.delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => drop(other?),
    }
    if let Value::Object(intent) = &mut operation.intent {
        intent.insert("uid".to_owned(), json!(uid));
    }
    Ok(Went::Done(format!("asked to delete DataService {}/{name}", place.service.namespace)))
}

/// What is set before the deletion: what happens to the data, and that it was confirmed.
fn last_will(operation: &Operation) -> Value {
    let confirmed = operation.intent.get("confirmed") == Some(&Value::Bool(true));
    let note = confirmed.then(|| operation.id.to_string());
    json!({
        "metadata": {"annotations": {meta::DELETE_CONFIRMED: note}},
        "spec": {"deletion": {"strategy": operation.intent.get("strategy")}},
    })
}

/// Until when the volumes are kept.
fn kept_until(operation: &Operation, service: &DataService, now: Time) -> Option<Time> {
    let hours = service.spec.deletion.undelete_hours;
    match (operation.intent.get("strategy").and_then(Value::as_str), hours) {
        (Some("Delete"), _) | (Some("FinalBackup"), 0) => None,
        // Kept until somebody deletes them.
        (_, 0) => Some(now + time::Duration::days(3650)),
        (_, hours) => Some(now + time::Duration::hours(hours)),
    }
}

/// What a deletion waits for.
fn blocked_by(seen: &Seen) -> String {
    let status = seen.status();
    let blocked = status.conditions.iter().find(|c| c.type_ == "DeletionBlocked" && c.status == "True");
    let why = status.why.map(|why| why.message);
    blocked.map(|c| c.message.clone()).or(why).unwrap_or_else(|| "the operator tidies up".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Subject, SubjectKind};

    fn deletion(strategy: &str) -> Operation {
        let subject = Subject { kind: SubjectKind::DataService, id: "dsv_1".into(), name: "a".into() };
        let intent = json!({"strategy": strategy, "confirmed": true});
        Operation::new(OperationKind::Delete, subject, None, intent, "ada".into(), Time::UNIX_EPOCH)
    }

    fn service(hours: i64) -> DataService {
        let now = Time::UNIX_EPOCH;
        let mut spec = culvert_resources::DataServiceSpec::default();
        spec.deletion.undelete_hours = hours;
        DataService {
            id: DataServiceId::generate(),
            project: crate::domain::ProjectId::generate(),
            cluster: crate::domain::ClusterId::generate(),
            namespace: "data-default".parse().unwrap(),
            name: "orders".parse().unwrap(),
            spec,
            revision: 7,
            sent_revision: 0,
            unmanaged: false,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            undelete_until: None,
            seen: None,
        }
    }

    #[test]
    fn volumes_are_kept_as_the_strategy_says() {
        let kept = |strategy, hours| kept_until(&deletion(strategy), &service(hours), Time::UNIX_EPOCH);
        assert_eq!(kept("Delete", 72), None);
        assert_eq!(kept("FinalBackup", 0), None);
        assert_eq!(kept("Retain", 72), Some(Time::UNIX_EPOCH + time::Duration::hours(72)));
        assert!(kept("Retain", 0).unwrap() > Time::UNIX_EPOCH + time::Duration::days(365));
    }

    #[test]
    fn an_object_is_known_by_its_record() {
        let service = service(72);
        let object: DynamicObject = serde_json::from_value(manifest(&service)).unwrap();
        assert!(is_of(&object, service.id));
        assert!(!is_of(&object, DataServiceId::generate()));
        assert_eq!(object.metadata.annotations.unwrap()[meta::REVISION], "7");
    }
}
