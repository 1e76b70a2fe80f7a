//! Recorded against live: the difference, taking over what was done by hand, the manifest.

use culvert_resources::{DataServiceSpec, meta};
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

    /// Makes the fields ours without changing them; refused when they change meanwhile.
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
        let held = objects.patch(adopted.name.as_str(), &params, &Patch::Apply(object)).await;
        Ok(held.map_err(Trouble::from)?)
    }
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
