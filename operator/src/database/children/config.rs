//! `instance.json`: what the runner of each instance reads.
use std::collections::BTreeMap;

use culvert_resources::instance::{ArchiveConfig, InstanceConfig, SourceConfig};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::Parent;
use crate::driver::OWNER;
use crate::reconcile::Error;

/// Name of the file.
pub(in crate::database) const FILE: &str = "instance.json";
/// Seconds for which the primary may go without renewing its Lease: a failover takes this and a little more.
const LEASE_SECONDS: i32 = 15;

/// Where the log goes, and what a new database is filled from; both need objects besides the Database.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::database) struct Elsewhere {
    pub(in crate::database) archive: Option<ArchiveConfig>,
    pub(in crate::database) source: Option<SourceConfig>,
}

/// The file, as text, for volumes of so many bytes.
pub(in crate::database) fn text(
    parent: &Parent<'_>,
    elsewhere: Elsewhere,
    volume_bytes: i64,
) -> Result<String, Error> {
    let spec = &parent.database.spec;
    let config = InstanceConfig {
        engine: spec.engine.clone(),
        driver: spec.driver.clone(),
        version: spec.version.clone(),
        namespace: parent.namespace.to_owned(),
        database: parent.name.to_owned(),
        uid: parent.database.uid().unwrap_or_default(),
        port: parent.engine.port,
        replicas: spec.topology.replicas,
        synchronous: spec.topology.synchronous,
        owner: OWNER.to_owned(),
        parameters: spec.parameters.clone(),
        tls: spec.tls.mode,
        archive: elsewhere.archive,
        source: elsewhere.source,
        lease_seconds: LEASE_SECONDS,
        volume_bytes: Some(volume_bytes),
    };
    serde_json::to_string_pretty(&config).map_err(Error::making)
}

/// The ConfigMap with the file.
pub(in crate::database) fn map(parent: &Parent<'_>, text: String) -> ConfigMap {
    ConfigMap {
        metadata: parent.owned(parent.names().instance()),
        data: Some(BTreeMap::from([(FILE.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// What the runner calls `configDigest`: SHA-256 of the file, hexadecimal.
pub(in crate::database) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;

    #[test]
    fn the_file_is_what_the_runner_reads_and_holds_no_secret() {
        let database = database(|_| {});
        let text = text(&parent(&database), Elsewhere::default(), 1 << 30).unwrap();
        let read: InstanceConfig = serde_json::from_str(&text).unwrap();
        assert_eq!((read.database.as_str(), read.replicas, read.port), ("orders", 3, 5432));
        assert!(!text.contains("password"));
    }
}
