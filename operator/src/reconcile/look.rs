//! Reading more than one object, and asking whether a namespace still takes any.
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::error::Error;
use super::work::Work;

impl Work {
    /// All objects of a kind in a namespace.
    pub(crate) async fn all<K>(&self, namespace: &str) -> Result<Vec<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let list = self.api::<K>(namespace).list(&ListParams::default()).await;
        list.map(|list| list.items).map_err(|error| Error::kube(format!("listing {}", K::plural(&())), error))
    }

    /// Whether a namespace is being deleted, or gone.
    pub(crate) async fn namespace_ends(&self, namespace: &str) -> Result<bool, Error> {
        let namespaces: Api<Namespace> = Api::all(self.world().client());
        let found = namespaces.get_opt(namespace).await;
        let found = found.map_err(|error| Error::kube(format!("reading Namespace {namespace}"), error))?;
        Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
    }
}
