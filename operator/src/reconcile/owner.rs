//! Metadata of children: whose they are, and the labels that all of them have.
use std::collections::BTreeMap;

use culvert_resources::meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt as _};

/// The reference to an owner that controls its children.
pub(crate) fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<OwnerReference> {
    object.controller_owner_ref(&())
}

/// Labels of everything that belongs to a data service.
pub(crate) fn labels(service: &str, engine: &str) -> BTreeMap<String, String> {
    [
        (meta::SERVICE, service),
        (meta::DATABASE, service),
        (meta::ENGINE, engine),
        (meta::MANAGED_BY, "culvert"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Metadata of a child in the namespace of its owner.
pub(crate) fn owned<K: Resource<DynamicType = ()>>(
    parent: &K,
    name: impl Into<String>,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: parent.namespace(),
        labels: Some(labels),
        owner_references: owner(parent).map(|reference| vec![reference]),
        ..ObjectMeta::default()
    }
}
