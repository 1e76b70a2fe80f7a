//! The PodDisruptionBudget: a drain of nodes takes one instance at a time.
use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Parent;

/// One instance may be away. With a single instance a drain goes on too: a node that cannot be drained helps nobody.
pub(in crate::database) fn budget(parent: &Parent<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: parent.owned(parent.names().own()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from(parent.names().selector())),
                ..LabelSelector::default()
            }),
            // An instance that never became ready must not keep a node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
