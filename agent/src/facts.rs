//! What the agent finds out about its cluster: for people to see, never for a decision of the agent's own.
//!
//! Every probe stands alone. What the agent may not read, or what does not
//! answer, leaves its field empty and adds a sentence to `problem`.
use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_proto::tunnel::v1::Facts;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client};

/// Time that one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Small requests whose median is the API server's latency.
const LATENCY_SAMPLES: usize = 5;

/// Storage classes that are reported; a cluster has a handful.
const MAX_CLASSES: u32 = 64;

/// Asks the cluster. Never fails: see the module.
/// `sealing_key` is the public half of the agent's key for sealed credentials, empty without one.
pub async fn probe(kube: &Client, route: String, policy: String, sealing_key: Bytes) -> Facts {
    let mut problems = Vec::new();
    let mut take = |what: &str, problem: Option<String>| {
        if let Some(problem) = problem {
            problems.push(format!("{what}: {problem}"));
        }
    };
    let (version, problem) = timed(version_and_latency(kube)).await;
    take("version", problem);
    let (nodes, problem) = timed(node_count(kube)).await;
    take("nodes", problem);
    let (storage_classes, problem) = timed(storage_classes(kube)).await;
    take("storage classes", problem);
    let (cluster_uid, problem) = timed(cluster_uid(kube)).await;
    take("namespace kube-system", problem);
    let (kubernetes_version, api_latency_us) = version;
    Facts {
        kubernetes_version,
        nodes,
        storage_classes,
        cluster_uid,
        api_latency_us,
        problem: problems.join("; "),
        route,
        policy,
        sealing_key,
    }
}

/// The probe's value, or an empty one and the reason.
async fn timed<T: Default>(probe: impl Future<Output = Result<T, kube::Error>>) -> (T, Option<String>) {
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(Ok(value)) => (value, None),
        Ok(Err(kube::Error::Api(status))) => (T::default(), Some(crate::causes::one_line(&status.message))),
        Ok(Err(error)) => (T::default(), Some(crate::causes::chain(&error))),
        Err(_) => (T::default(), Some(format!("no answer within {} s", PROBE_TIMEOUT.as_secs()))),
    }
}

/// Version, and the median time of small requests in microseconds.
async fn version_and_latency(kube: &Client) -> Result<(String, u64), kube::Error> {
    // The first one dials; it is no sample.
    let version = kube.apiserver_version().await?.git_version;
    let mut samples = Vec::with_capacity(LATENCY_SAMPLES);
    for _ in 0..LATENCY_SAMPLES {
        let start = Instant::now();
        kube.apiserver_version().await?;
        samples.push(start.elapsed());
    }
    samples.sort_unstable();
    let median = samples.get(LATENCY_SAMPLES / 2).copied().unwrap_or_default();
    Ok((version, u64::try_from(median.as_micros()).unwrap_or(u64::MAX)))
}

/// Counts without reading them all: one node, and how many remain.
async fn node_count(kube: &Client) -> Result<u32, kube::Error> {
    let list = Api::<Node>::all(kube.clone()).list_metadata(&ListParams::default().limit(1)).await?;
    let remaining = list.metadata.remaining_item_count.unwrap_or_default().max(0);
    let count = u64::try_from(remaining).unwrap_or_default().saturating_add(list.items.len() as u64);
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

async fn storage_classes(kube: &Client) -> Result<Vec<String>, kube::Error> {
    let params = ListParams::default().limit(MAX_CLASSES);
    let list = Api::<StorageClass>::all(kube.clone()).list_metadata(&params).await?;
    Ok(list.items.into_iter().filter_map(|class| class.metadata.name).collect())
}

async fn cluster_uid(kube: &Client) -> Result<String, kube::Error> {
    let namespace = Api::<Namespace>::all(kube.clone()).get_metadata("kube-system").await?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}
