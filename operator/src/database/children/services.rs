//! Services: one name for the primary, one for the replicas, and one for each pod.
use std::collections::BTreeMap;

use culvert_resources::instance::RUNNER_PORT;
use culvert_resources::meta;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Parent;

/// The headless Service: a name for each pod from its first breath, because a standby has to find its primary.
pub(in crate::database) fn headless(parent: &Parent<'_>) -> Service {
    Service {
        metadata: parent.owned(parent.names().pods()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(BTreeMap::from(parent.names().selector())),
            ports: Some(vec![port("engine", parent.engine.port), port("runner", RUNNER_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service of the primary.
pub(in crate::database) fn primary(parent: &Parent<'_>) -> Service {
    by_role(parent, parent.names().own(), "primary")
}

/// The Service of the replicas, when there are any.
pub(in crate::database) fn replicas(parent: &Parent<'_>) -> Option<Service> {
    (parent.database.spec.topology.replicas > 1)
        .then(|| by_role(parent, parent.names().replicas(), "replica"))
}

fn by_role(parent: &Parent<'_>, name: String, role: &str) -> Service {
    let mut selector = BTreeMap::from(parent.names().selector());
    selector.insert(meta::ROLE.to_owned(), role.to_owned());
    Service {
        metadata: parent.owned(name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector),
            ports: Some(vec![port("engine", parent.engine.port)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;

    #[test]
    fn the_services_of_roles_select_by_role_and_the_headless_one_does_not() {
        let database = database(|_| {});
        let parent = parent(&database);
        let role = |service: &Service| {
            service.spec.as_ref().unwrap().selector.as_ref().unwrap().get(meta::ROLE).cloned()
        };
        assert_eq!(role(&primary(&parent)).as_deref(), Some("primary"));
        assert_eq!(role(&replicas(&parent).unwrap()).as_deref(), Some("replica"));
        assert_eq!(role(&headless(&parent)), None);
    }

    #[test]
    fn without_replicas_there_is_no_service_for_them() {
        let database = database(|spec| spec.topology.replicas = 1);
        assert!(replicas(&parent(&database)).is_none());
    }
}
