//! Asks each instance's runner how it is.
//!
//! What answers is a pod that a tenant's engine runs in, so nothing of it is trusted: the time is bounded, the size
//! is bounded, and one that does not answer delays nobody else.
use std::collections::BTreeMap;
use std::time::Duration;

use culvert_resources::instance::{InstanceStatus, RUNNER_PORT};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Time for one answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer, in bytes.
const LONGEST: usize = 64 * 1024;
/// Instances that are asked at once.
const AT_ONCE: usize = 5;

/// What each pod told; those that did not answer are absent.
pub(super) async fn ask(http: &reqwest::Client, pods: &[Pod]) -> BTreeMap<String, InstanceStatus> {
    let addressed = |pod: &Pod| {
        let address = pod.status.as_ref()?.pod_ip.clone().filter(|address| !address.is_empty())?;
        Some((pod.name_any(), address))
    };
    let asked: Vec<(String, String)> = pods.iter().filter_map(addressed).collect();
    let answers = futures::stream::iter(asked).map(|(pod, address)| async move {
        match tokio::time::timeout(LIMIT, one(http, &address)).await {
            Ok(Ok(told)) => Some((pod, told)),
            Ok(Err(error)) => {
                tracing::debug!(pod, error, "an instance did not say how it is");
                None
            }
            Err(_) => {
                tracing::debug!(pod, "an instance did not answer in time");
                None
            }
        }
    });
    answers.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

async fn one(http: &reqwest::Client, address: &str) -> Result<InstanceStatus, String> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = format!("http://{host}:{RUNNER_PORT}/status");
    let mut answer = http.get(url).send().await.map_err(|error| error.without_url().to_string())?;
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST {
            return Err("the answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
