//! Writing to the API server: children by server-side apply, status by the same, and careful deletion.
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::work::Work;

impl Work {
    /// Objects of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.world.client(), namespace)
    }

    /// Makes an object of ours what `wanted` says, whoever changed it meanwhile.
    pub(crate) async fn apply<K>(&self, wanted: &K) -> Result<K, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
        let document = typed(wanted)?;
        let parameters = PatchParams::apply(self.manager).force();
        let api: Api<K> = self.api(&namespace);
        let applied = api.patch(&name, &parameters, &Patch::Apply(&document)).await;
        applied.map_err(|error| Error::kube(format!("applying {} {name}", K::kind(&())), error))
    }

    /// Writes this controller's part of a status. `status` serialises to the status alone.
    pub(crate) async fn status<K, S>(&self, object: &K, status: &S) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
        S: Serialize,
    {
        self.write_status(object, status, PatchParams::apply(self.manager).force()).await
    }

    /// The same, unless another manager has written one of its fields meanwhile: then nothing is written.
    pub(crate) async fn offer_status<K, S>(&self, object: &K, status: &S) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
        S: Serialize,
    {
        self.write_status(object, status, PatchParams::apply(self.manager)).await
    }

    async fn write_status<K, S>(&self, object: &K, status: &S, parameters: PatchParams) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
        S: Serialize,
    {
        let name = object.name_any();
        let document = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name, "uid": object.uid() },
            "status": status,
        });
        let path = K::url_path(&(), object.namespace().as_deref());
        let request = kube::core::Request::new(path)
            .patch_subresource("status", &name, &parameters, &Patch::Apply(&document))
            .map_err(Error::making)?;
        match self.world.client().request::<serde_json::Value>(request).await {
            Ok(_) => Ok(()),
            // It was deleted meanwhile, or is another object of the same name: nothing to report on.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::kube(format!("reporting on {} {name}", K::kind(&())), error)),
        }
    }

    /// Deletes an object, when it is there and still the one with this uid.
    pub(crate) async fn delete<K>(&self, object: &K, parameters: DeleteParams) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let very = Preconditions { uid: object.uid(), resource_version: None };
        let api: Api<K> = self.api(&namespace);
        match api.delete(&name, &DeleteParams { preconditions: Some(very), ..parameters }).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::kube(format!("deleting {} {name}", K::kind(&())), error)),
        }
    }

    /// Changes annotations of an object; `None` removes one. Gone objects are left gone.
    pub(crate) async fn annotate<K>(
        &self,
        object: &K,
        changes: &[(&str, Option<String>)],
    ) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let annotations: serde_json::Map<String, serde_json::Value> =
            changes.iter().map(|(key, value)| ((*key).to_owned(), serde_json::json!(value))).collect();
        let patch = serde_json::json!({ "metadata": { "uid": object.uid(), "annotations": annotations } });
        let api: Api<K> = self.api(&namespace);
        match api.patch(&name, &self.patching(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::kube(format!("annotating {} {name}", K::kind(&())), error)),
        }
    }

    /// Adds or removes our finalizer.
    pub(crate) async fn finalizer<K>(&self, object: &K, wanted: bool) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        use culvert_resources::meta::FINALIZER;
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        if object.finalizers().iter().any(|held| held == FINALIZER) == wanted {
            return Ok(());
        }
        let mut finalizers = object.finalizers().to_vec();
        finalizers.retain(|held| held != FINALIZER);
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        }
        // The version makes a conflict of a change by somebody else, which the next round sees.
        let patch = serde_json::json!({ "metadata": {
            "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
        }});
        let api: Api<K> = self.api(&namespace);
        match api.patch(&name, &self.patching(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            Err(error) => Err(Error::kube(format!("writing the finalizers of {name}"), error)),
        }
    }

    /// Reads an object that may not be there.
    pub(crate) async fn find<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let found = self.api::<K>(namespace).get_opt(name).await;
        found.map_err(|error| Error::kube(format!("reading {} {name}", K::kind(&())), error))
    }

    /// Lists the objects of a namespace with a label.
    pub(crate) async fn list<K>(&self, namespace: &str, label: &str, value: &str) -> Result<Vec<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let wanted = kube::api::ListParams::default().labels(&format!("{label}={value}"));
        let found = self.api::<K>(namespace).list(&wanted).await;
        found
            .map(|list| list.items)
            .map_err(|error| Error::kube(format!("listing {}", K::plural(&())), error))
    }
}

/// The document of an object, with its type, as server-side apply wants it.
fn typed<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<serde_json::Value, Error> {
    let mut document = serde_json::to_value(object).map_err(Error::making)?;
    if let Some(fields) = document.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
        // Ours to read, not to write.
        fields.remove("status");
    }
    Ok(document)
}
