//! Keeps the role's label on this pod, by which the Services find the primary and the replicas.
use std::time::Duration;

use culvert_resources::meta::ROLE;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;

/// Time between attempts.
const AGAIN: Duration = Duration::from_secs(2);
/// Time after which the label is written even so, because somebody may have removed it.
const ANYWAY: Duration = Duration::from_secs(60);

/// Writes the label whenever the role changes; none removes it. Ends when nobody sends any more.
pub(crate) async fn keep(
    client: Client,
    namespace: String,
    pod: String,
    mut role: watch::Receiver<Option<&'static str>>,
) {
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let mut failing = false;
    loop {
        let wanted = *role.borrow_and_update();
        let patch = Patch::Merge(serde_json::json!({ "metadata": { "labels": { ROLE: wanted } } }));
        let params = PatchParams::default();
        let problem = match tokio::time::timeout(AGAIN, api.patch(&pod, &params, &patch)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        if let Some(problem) = &problem
            && !failing
        {
            tracing::warn!(problem, "the role cannot be written on the pod");
        }
        failing = problem.is_some();
        let wait = if failing { AGAIN } else { ANYWAY };
        if let Ok(Err(_)) = tokio::time::timeout(wait, role.changed()).await {
            return;
        }
    }
}
