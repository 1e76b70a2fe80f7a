//! What all controllers share: the client, the metrics, the clock, the settings.
use std::sync::Arc;

use culvert_resources::DataPlaneSpec;
use k8s_openapi::jiff::Timestamp;
use kube::Client;

use crate::config::Config;
use crate::metrics::Metrics;

/// What all controllers share. Clones are cheap.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    client: Client,
    metrics: Arc<Metrics>,
    concurrency: u16,
    namespace: String,
    identity: String,
    data_plane: Option<DataPlaneSpec>,
}

impl World {
    pub(crate) fn new(
        client: Client,
        metrics: Arc<Metrics>,
        config: &Config,
        data_plane: Option<DataPlaneSpec>,
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            metrics,
            concurrency: config.concurrency,
            namespace: config.namespace.clone(),
            identity: config.identity.clone(),
            data_plane,
        }))
    }

    /// The way to the API server.
    pub(crate) fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// The metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Objects of one kind that are worked on at the same time.
    pub(crate) fn concurrency(&self) -> u16 {
        self.0.concurrency
    }

    /// The operator's own namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The name of this process.
    pub(crate) fn identity(&self) -> &str {
        &self.0.identity
    }

    /// What the chart says that this cluster can run.
    pub(crate) fn data_plane(&self) -> Option<&DataPlaneSpec> {
        self.0.data_plane.as_ref()
    }

    /// The time. Rules take it as an argument; this is where it comes from.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
