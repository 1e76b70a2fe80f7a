//! The NetworkPolicy: who may connect to the engine, and who may ask the runner.
use std::collections::BTreeMap;

use culvert_resources::PeerRule;
use culvert_resources::instance::RUNNER_PORT;
use culvert_resources::meta;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Parent;

/// Label that Kubernetes puts on every namespace.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// Label of the agent's pods, which tell the control plane what instances measure.
const AGENT: (&str, &str) = ("app.kubernetes.io/name", "culvert-agent");

/// `operator` is the namespace of the operator, which asks each runner how it is. The agent may live in any
/// namespace: what a runner tells is no secret, and it takes no orders.
pub(in crate::database) fn policy(parent: &Parent<'_>, operator: &str) -> NetworkPolicy {
    let own = selecting([(meta::SERVICE.to_owned(), parent.name.to_owned())]);
    let members = NetworkPolicyPeer { pod_selector: Some(own), ..NetworkPolicyPeer::default() };
    let operators = NetworkPolicyPeer {
        namespace_selector: Some(selecting([(NAMESPACE.to_owned(), operator.to_owned())])),
        ..NetworkPolicyPeer::default()
    };
    let agents = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(selecting([(AGENT.0.to_owned(), AGENT.1.to_owned())])),
        ..NetworkPolicyPeer::default()
    };
    let mut clients = peers(&parent.database.spec.network.allow);
    // Instances follow each other, and Jobs back them up.
    clients.push(members.clone());
    let ingress =
        vec![rule(clients, parent.engine.port), rule(vec![members, operators, agents], RUNNER_PORT)];
    NetworkPolicy {
        metadata: parent.owned(parent.names().own()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selecting(parent.names().selector())),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}

fn peers(allow: &[PeerRule]) -> Vec<NetworkPolicyPeer> {
    if allow.is_empty() {
        // Every pod of the same namespace.
        return vec![NetworkPolicyPeer {
            pod_selector: Some(LabelSelector::default()),
            ..NetworkPolicyPeer::default()
        }];
    }
    allow
        .iter()
        .map(|rule| NetworkPolicyPeer {
            namespace_selector: rule.namespaces.clone(),
            // A peer without any selector would be refused.
            pod_selector: rule
                .pods
                .clone()
                .or_else(|| rule.namespaces.is_none().then(LabelSelector::default)),
            ..NetworkPolicyPeer::default()
        })
        .collect()
}

fn rule(from: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port))),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}

fn selecting<const N: usize>(labels: [(String, String); N]) -> LabelSelector {
    LabelSelector { match_labels: Some(BTreeMap::from(labels)), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{database, parent};
    use super::*;

    fn engine_peers(change: impl FnOnce(&mut culvert_resources::DatabaseSpec)) -> Vec<NetworkPolicyPeer> {
        let database = database(change);
        let policy = policy(&parent(&database), "culvert");
        policy.spec.unwrap().ingress.unwrap()[0].from.clone().unwrap()
    }

    #[test]
    fn unless_said_otherwise_the_namespace_may_connect_and_nobody_else() {
        let peers = engine_peers(|_| {});
        assert!(peers.iter().all(|peer| peer.namespace_selector.is_none()));
    }

    #[test]
    fn an_empty_rule_means_the_own_namespace_never_everybody() {
        let peers = engine_peers(|spec| spec.network.allow = vec![PeerRule::default()]);
        assert!(peers[0].namespace_selector.is_none() && peers[0].pod_selector.is_some());
    }

    #[test]
    fn the_own_members_may_always_connect() {
        let chosen = PeerRule { namespaces: Some(LabelSelector::default()), pods: None };
        let peers = engine_peers(|spec| spec.network.allow = vec![chosen]);
        assert_eq!(peers.len(), 2);
        assert!(
            peers[1]
                .pod_selector
                .as_ref()
                .unwrap()
                .match_labels
                .as_ref()
                .unwrap()
                .contains_key(meta::SERVICE)
        );
    }

    #[test]
    fn only_the_operator_agents_and_members_ask_the_runner() {
        let database = database(|_| {});
        let ingress = policy(&parent(&database), "culvert").spec.unwrap().ingress.unwrap();
        let from = ingress[1].from.as_ref().unwrap();
        assert_eq!(from.len(), 3);
        assert!(from.iter().all(|peer| peer.pod_selector.is_some() || peer.namespace_selector.is_some()));
    }
}
