//! Recorded against live: the difference, taking over what was done by hand, the manifest.

use culvert_resources::{DataServiceSpec, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::DataServiceView;
use super::look::only;
use crate::app::drive::{Place, manifest};
use crate::app::in_cluster::Trouble;
use crate::app::{App, Error, require_admin};
use crate::domain::data_service::Seen;
use crate::domain::difference::{Difference, differences};
use crate::domain::{Act, Caller, Claim, DataService, DataServiceId, DataServiceRef};

impl App {
    /// How what lives in the cluster differs from what is recorded, asked of the cluster now.
    pub async fn data_service_difference(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
    ) -> Result<Vec<Difference>, Error> {
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        let object = self.live_object(caller, &service).await?;
        let (recorded, live) = (value_of(&service.spec), value_of(&spec_of(&object)?));
        let managed = serde_json::to_value(&object.metadata.managed_fields).unwrap_or_default();
        Ok(differences(&recorded, &live, &managed, meta::manager::CONTROLLER))
    }

    /// Takes what lives in the cluster as what is wanted, and its fields as ours: what was edited
    /// by hand, or made with kubectl alone.
    pub async fn adopt_data_service(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
    ) -> Result<DataServiceView, Error> {
        require_admin(caller)?;
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        let id = self.adopt_record(caller, service).await?;
        self.data_service(caller, &id.into()).await
    }

    /// Takes what lives in the cluster as what this record wants; with its project as it is given.
    pub(in crate::app) async fn adopt_record(
        &self,
        caller: &Caller,
        service: DataService,
    ) -> Result<DataServiceId, Error> {
        let object = self.live_object(caller, &service).await?;
        let (spec, revision) = (spec_of(&object)?, service.revision.saturating_add(1));
        let now = self.now();
        let adopted = DataService {
            spec,
            revision,
            sent_revision: revision,
            unmanaged: false,
            updated_at: now,
            ..service.clone()
        };
        let claim = Claim::of(&adopted.spec).map_err(|error| {
            Error::refused("not_readable", error.to_string(), "mend it in the cluster first")
        })?;
        let held = self.take_hold(caller, &adopted, &object).await?;
        let tx = self.store().write(caller).await?;
        super::change::may_change(&tx, &service).await?;
        if !tx.change_data_service(&adopted, service.revision, claim).await? {
            let reason = "somebody else changed it at the same time";
            return Err(Error::refused("changed_meanwhile", reason, "look at it, and try again"));
        }
        let seen = serde_json::to_value(&held).ok().and_then(|held| Seen::of(&held, now));
        tx.saw_data_service(adopted.id, seen.as_ref()).await?;
        tx.audit(Act::DataServiceAdopted, adopted.id, adopted.name.as_str(), now).await?;
        tx.commit().await?;
        self.publish_data_service(caller, adopted.id).await;
        Ok(adopted.id)
    }

    /// A data service as a manifest for kubectl, without what only this installation knows.
    pub async fn data_service_manifest(
        &self,
        caller: &Caller,
        which: &DataServiceRef,
    ) -> Result<String, Error> {
        let service = only(self.store().org(caller).data_services_named(which).await?)?;
        let object = json!({
            "apiVersion": format!("{}/{}", meta::GROUP, meta::VERSION),
            "kind": "DataService",
            "metadata": {"name": service.name, "namespace": service.namespace},
            "spec": service.spec,
        });
        serde_saphyr::to_string(&object).map_err(|error| Error::internal("no manifest", error))
    }

    async fn live_object(&self, caller: &Caller, service: &DataService) -> Result<DynamicObject, Error> {
        let client = self.in_cluster(caller.org(), service.cluster).await?;
        let found = Place { service, client }.objects().get_opt(service.name.as_str()).await;
        found.map_err(Trouble::from)?.ok_or_else(|| {
            let reason =
                format!("there is no DataService {}/{} in the cluster", service.namespace, service.name);
            Error::refused("not_in_cluster", reason, "wait until it was sent, or send it with an update")
        })
    }

    /// Makes the fields ours without changing them, and nobody else's; refused when they change meanwhile.
    async fn take_hold(
        &self,
        caller: &Caller,
        adopted: &DataService,
        seen: &DynamicObject,
    ) -> Result<DynamicObject, Error> {
        let mut object = manifest(adopted);
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.insert("resourceVersion".to_owned(), json!(seen.metadata.resource_version));
        }
        let client = self.in_cluster(caller.org(), adopted.cluster).await?;
        let objects = Place { service: adopted, client }.objects();
        let params = PatchParams::apply(meta::manager::CONTROLLER).force();
        let name = adopted.name.as_str();
        let held = objects.patch(name, &params, &Patch::Apply(object)).await.map_err(Trouble::from)?;
        // To apply what is there already makes others no less its owners, and our next change would be
        // refused for their sake.
        let Some(alone) = without_other_owners(held.managed_fields()) else { return Ok(held) };
        let metadata = json!({"resourceVersion": held.metadata.resource_version, "managedFields": alone});
        let ours = json!({ "metadata": metadata });
        Ok(objects.patch(name, &patching(), &Patch::Merge(ours)).await.map_err(Trouble::from)?)
    }
}

fn patching() -> PatchParams {
    PatchParams { field_manager: Some(meta::manager::CONTROLLER.to_owned()), ..PatchParams::default() }
}

/// Who owns what, when the spec is ours alone; none when it is already. What others own of the metadata
/// and of the status stays theirs.
fn without_other_owners(managed: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut changed = false;
    let left = managed.iter().filter_map(|entry| {
        let mut entry = entry.clone();
        if entry.manager.as_deref() == Some(meta::manager::CONTROLLER) || entry.subresource.is_some() {
            return Some(entry);
        }
        let fields = entry.fields_v1.as_mut().and_then(|fields| fields.0.as_object_mut());
        let Some(fields) = fields else { return Some(entry) };
        changed |= fields.remove("f:spec").is_some();
        (!fields.is_empty()).then_some(entry)
    });
    let left: Vec<_> = left.collect();
    changed.then_some(left)
}

fn value_of(spec: &DataServiceSpec) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

fn spec_of(object: &DynamicObject) -> Result<DataServiceSpec, Error> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).map_err(|error| {
        let reason = format!("the spec in the cluster cannot be read: {error}");
        Error::refused("not_readable", reason, "mend it in the cluster first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, subresource: Option<&str>, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({"manager": manager, "operation": "Update", "subresource": subresource,
            "fieldsType": "FieldsV1", "fieldsV1": fields}))
        .unwrap()
    }

    #[test]
    fn the_spec_becomes_ours_alone_and_nothing_else() {
        let spec = json!({"f:spec": {"f:version": {}}});
        let ours = entry(meta::manager::CONTROLLER, None, spec.clone());
        let status = entry("culvert-operator/data-service", Some("status"), json!({"f:status": {}}));
        let both = json!({"f:metadata": {"f:finalizers": {}}, "f:spec": {"f:version": {}}});
        let mixed = entry("kubectl-edit", None, both);
        let theirs = entry("kubectl-edit", None, json!({"f:metadata": {"f:finalizers": {}}}));
        let all = [ours.clone(), status.clone(), mixed, entry("unknown", None, spec)];
        let left = without_other_owners(&all).unwrap();
        assert_eq!(left, [ours, status, theirs]);
        assert_eq!(without_other_owners(&left), None);
    }
}
