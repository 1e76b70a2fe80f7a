//! The objects of a database as values: pure functions from what has been released to what shall exist.
//!
//! Only the StatefulSet's template is kept as it was rendered ([`crate::reconcile::Kept`]); everything else may
//! change with a new operator, because it restarts nothing.

pub(super) mod access;
pub(super) mod budget;
pub(super) mod config;
pub(super) mod network;
pub(super) mod pod;
pub(super) mod secrets;
pub(super) mod services;
pub(super) mod stateful_set;

use std::collections::BTreeMap;

use culvert_engines::Engine;
use culvert_resources::Database;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::names::Names;
use crate::driver::Driver;
use crate::reconcile;

/// What every child is made from.
#[derive(Clone, Copy)]
pub(super) struct Parent<'a> {
    pub(super) database: &'a Database,
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) engine: &'static Engine,
    pub(super) driver: &'static dyn Driver,
}

impl Parent<'_> {
    pub(super) fn names(&self) -> Names<'_> {
        Names::new(self.name, self.namespace)
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        reconcile::labels(self.name, &self.database.spec.engine)
    }

    /// Metadata of a child that goes with the database.
    pub(super) fn owned(&self, name: String) -> ObjectMeta {
        reconcile::owned(self.database, name, self.labels())
    }

    /// Metadata of what outlives the database: it goes with the volumes.
    pub(super) fn lasting(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: self.database.namespace(),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }
}

/// For the tests of all children.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use culvert_resources::DatabaseSpec;

    pub(crate) fn database(change: impl FnOnce(&mut DatabaseSpec)) -> Database {
        let mut spec: DatabaseSpec = serde_json::from_value(serde_json::json!({
            "engine": "postgresql", "driver": "postgresql", "version": "15.20",
            "image": {"engine": "localhost/postgresql:15.20", "runner": "localhost/runner:1"},
            "topology": {"replicas": 3}, "resources": {}, "storage": {},
            "parameters": {"max_connections": "100"},
        }))
        .unwrap();
        change(&mut spec);
        let mut database = Database::new("orders", spec);
        database.metadata.namespace = Some("shop".to_owned());
        database.metadata.uid = Some("0f5e".to_owned());
        database
    }

    pub(crate) fn parent(database: &Database) -> Parent<'_> {
        let (engine, driver) = crate::driver::engine(&database.spec.engine).unwrap();
        Parent { database, name: "orders", namespace: "shop", engine, driver }
    }
}
