//! What differs between engines, as far as their objects in the cluster go.
//!
//! What can be data is data (`culvert-engines`: versions, parameters, sizes, what a change costs). What speaks the
//! engine's own language is the runner's. Between the two stands little: names of users, what a pod needs, what an
//! application is told. A new engine is a folder of data, a driver in the runner, and one more file here.
//!
//! [`Driver`] is asked for each thing that the database controller cannot know: [`Driver::roles`] for the Secrets that
//! people read, [`Driver::pod`] for the container, [`Driver::observe`] for what an instance told of itself. Planning
//! is the catalogue's, backups are the runner's. Nothing outlives the objects that the database
//! owns, so there is nothing to finalise but volumes, and those are the service's affair (`data_service`).

mod postgresql;
mod valkey;

use std::collections::BTreeMap;

use culvert_engines::{Engine, catalogue};
use culvert_resources::TlsMode;
use culvert_resources::instance::InstanceStatus;

use postgresql::Postgresql;
use valkey::Valkey;

/// Name of the owner's user and of the first database of every engine.
pub(crate) const OWNER: &str = "app";

/// What differs between engines.
pub(crate) trait Driver: Send + Sync {
    /// Name in the catalogue.
    fn name(&self) -> &'static str;
    /// What its container needs.
    fn pod(&self) -> PodNeeds;
    /// What people and applications are given.
    fn roles(&self, at: &Address<'_>) -> Roles;
    /// Whether an instance that told this is of use to clients now.
    fn observe(&self, told: &InstanceStatus) -> bool {
        told.healthy && matches!(told.role.as_str(), "primary" | "replica")
    }
}

/// What a container of an engine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodNeeds {
    /// Seconds to end in order, before it is killed.
    pub(crate) grace_seconds: i64,
    /// Whether it shares memory between processes through `/dev/shm`.
    pub(crate) shared_memory: bool,
}

/// Where a service is reached, and with which passwords.
pub(crate) struct Address<'a> {
    /// DNS name inside the cluster.
    pub(crate) host: &'a str,
    /// Port.
    pub(crate) port: u16,
    /// Whether TLS is demanded.
    pub(crate) tls: TlsMode,
    /// Password of the owner.
    pub(crate) owner_password: &'a str,
    /// Password of the administrator.
    pub(crate) admin_password: &'a str,
}

/// Contents of the Secrets that people read.
pub(crate) struct Roles {
    /// Of the owner of the data.
    pub(crate) owner: BTreeMap<String, String>,
    /// Of the administrator.
    pub(crate) admin: BTreeMap<String, String>,
}

static DRIVERS: [&dyn Driver; 2] = [&Postgresql, &Valkey];

/// The driver with this name, when it is compiled in.
pub(crate) fn driver(name: &str) -> Option<&'static dyn Driver> {
    DRIVERS.into_iter().find(|driver| driver.name() == name)
}

/// An engine of the catalogue whose driver is compiled in.
pub(crate) fn engine(name: &str) -> Option<(&'static Engine, &'static dyn Driver)> {
    let engine = catalogue().engine(name)?;
    Some((engine, driver(&engine.driver)?))
}

/// Entries of a Secret.
fn entries<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn address() -> Address<'static> {
        Address {
            host: "orders.shop.svc",
            port: 1234,
            tls: TlsMode::Required,
            owner_password: "own",
            admin_password: "adm",
        }
    }

    #[test]
    fn every_engine_of_the_catalogue_has_its_driver() {
        for known in catalogue().engines() {
            assert!(engine(&known.name).is_some(), "{} has no driver", known.name);
        }
    }

    #[test]
    fn every_driver_gives_an_application_what_it_needs() {
        for driver in DRIVERS {
            let roles = driver.roles(&address());
            for key in ["username", "password", "database", "host", "port", "uri"] {
                assert!(roles.owner.get(key).is_some_and(|value| !value.is_empty()), "{key}");
            }
            assert_eq!(roles.admin.keys().collect::<Vec<_>>(), ["password", "username"]);
            assert_eq!(roles.admin["password"], "adm");
        }
    }

    #[test]
    fn an_instance_that_starts_is_of_no_use_yet() {
        let told = |role: &str, healthy| InstanceStatus {
            role: role.to_owned(),
            healthy,
            ..InstanceStatus::default()
        };
        for driver in DRIVERS {
            assert!(driver.observe(&told("primary", true)) && driver.observe(&told("replica", true)));
            assert!(!driver.observe(&told("starting", true)) && !driver.observe(&told("primary", false)));
        }
    }
}
