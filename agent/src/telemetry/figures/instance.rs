//! Which instances there are, by the databases' own word, and where each is asked.
use std::str::FromStr;

use culvert_resources::instance::RUNNER_PORT;
use http::Uri;
use serde::Deserialize;
use thiserror::Error;

/// The most instances that are asked in one cluster.
const INSTANCES_MAX: usize = 1_000;
/// The most instances of one database; more is no answer of our operator.
const MEMBERS_MAX: usize = 16;

/// One instance of a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance {
    pub(super) namespace: String,
    pub(super) database: String,
    pub(super) pod: String,
}

/// What is read of a Database.
#[derive(Deserialize)]
struct Database {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    stopped: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    pod: String,
}

/// Every instance of these databases, as JSON.
pub(super) fn instances<'d>(databases: impl Iterator<Item = &'d [u8]>) -> Vec<Instance> {
    databases.flat_map(of_database).take(INSTANCES_MAX).collect()
}

fn of_database(json: &[u8]) -> Vec<Instance> {
    // One that cannot be read is told of as an object; here it has no instances.
    let Ok(database) = serde_json::from_slice::<Database>(json) else { return Vec::new() };
    let Metadata { name, namespace } = database.metadata;
    if database.spec.stopped {
        return Vec::new();
    }
    let pods = database.status.members.into_iter().map(|member| member.pod);
    // A name goes into an address: only what the operator would have made.
    let own = pods.filter(|pod| is_member(pod, &name)).take(MEMBERS_MAX);
    own.map(|pod| Instance { namespace: namespace.clone(), database: name.clone(), pod }).collect()
}

/// Whether a pod is one of the database's, by its name.
fn is_member(pod: &str, database: &str) -> bool {
    let ordinal = pod.strip_prefix(database).and_then(|rest| rest.strip_prefix('-'));
    ordinal.is_some_and(|text| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()))
}

/// Where figures are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Of an instance: with `{pod}`, `{database}` and `{namespace}` in it.
    instance: String,
    operator: Option<Uri>,
}

/// An address that cannot be asked.
#[derive(Debug, Error)]
#[error("{0:?} is no http address")]
pub struct AddressError(String);

impl Default for Addresses {
    fn default() -> Addresses {
        let instance = format!("http://{{pod}}.{{database}}-pods.{{namespace}}.svc:{RUNNER_PORT}/metrics");
        Addresses { instance, operator: None }
    }
}

impl FromStr for Addresses {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Addresses, AddressError> {
        let addresses = Addresses { instance: text.to_owned(), operator: None };
        let name = || "x".to_owned();
        addresses.of(&Instance { namespace: name(), database: name(), pod: name() })?;
        Ok(addresses)
    }
}

impl Addresses {
    pub(super) fn of(&self, instance: &Instance) -> Result<Uri, AddressError> {
        let text = self
            .instance
            .replace("{pod}", &instance.pod)
            .replace("{database}", &instance.database)
            .replace("{namespace}", &instance.namespace);
        address(&text)
    }

    /// Has the operator asked there; nowhere when the text is empty.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn set_operator(&mut self, text: &str) -> Result<(), AddressError> {
        self.operator = if text.is_empty() { None } else { Some(address(text)?) };
        Ok(())
    }

    pub(super) fn operator(&self) -> Option<&Uri> {
        self.operator.as_ref()
    }
}

fn address(text: &str) -> Result<Uri, AddressError> {
    let uri: Option<Uri> = text.parse().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    uri.ok_or_else(|| AddressError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: serde_json::Value, stopped: bool) -> Vec<String> {
        let database = json!({"metadata": {"name": "orders", "namespace": "data"},
            "spec": {"stopped": stopped}, "status": status});
        of_database(database.to_string().as_bytes()).into_iter().map(|instance| instance.pod).collect()
    }

    #[test]
    fn only_pods_of_the_database_are_asked() {
        let members = json!({"members": [{"pod": "orders-0"}, {"pod": "orders-1"}, {"pod": "orders-x"},
            {"pod": "evil.example"}, {"pod": "orders-0.evil"}, {"pod": "orders-"}, {"pod": "orders-0000"}]});
        assert_eq!(of(members.clone(), false), ["orders-0", "orders-1"]);
        assert!(of(members, true).is_empty(), "nothing runs");
        assert!(of(json!({}), false).is_empty());
        assert!(instances([&b"{"[..], b"[]"].into_iter()).is_empty());
    }

    #[test]
    fn a_database_that_names_very_many_is_not_believed() {
        let members: Vec<_> = (0..500).map(|n| json!({"pod": format!("orders-{n}")})).collect();
        assert_eq!(of(json!({"members": members}), false).len(), MEMBERS_MAX);
    }

    #[test]
    fn an_instance_is_asked_by_its_name_in_the_cluster() {
        let instance = Instance {
            namespace: "data".to_owned(),
            database: "orders".to_owned(),
            pod: "orders-1".to_owned(),
        };
        let address = Addresses::default().of(&instance).unwrap();
        assert_eq!(address.to_string(), "http://orders-1.orders-pods.data.svc:9180/metrics");
        let other: Addresses = "http://[::1]:99/{namespace}/{pod}".parse().unwrap();
        assert_eq!(other.of(&instance).unwrap().to_string(), "http://[::1]:99/data/orders-1");
        let mut addresses = Addresses::default();
        addresses.set_operator("http://operator.data.svc:9181/metrics").unwrap();
        assert!(addresses.operator().is_some());
        addresses.set_operator("https://operator/").unwrap_err();
        addresses.set_operator("").unwrap();
        assert_eq!(addresses.operator(), None);
        for bad in ["https://{pod}/", "/metrics", "ftp://x/", ""] {
            assert!(bad.parse::<Addresses>().is_err(), "{bad}");
        }
    }
}
