//! What the agents' room counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How an agent asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Way {
    Enrol,
    Renew,
    Rejoin,
}

impl Way {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Way::Enrol => "enrol",
            Way::Renew => "renew",
            Way::Rejoin => "rejoin",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Result {
    Granted,
    Refused,
    /// The controller itself failed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    way: Way,
    result: Result,
}

/// The room's metrics; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentMetrics {
    certificates: Family<CertificateLabels, Counter>,
    pub(crate) connected: Gauge,
    pub(crate) sessions: Counter,
    pub(crate) refused: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) silent: Counter,
}

impl AgentMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("agents");
        registry.register("certificates", "Requests for certificates", self.certificates.clone());
        registry.register("connected", "Agents with a session", self.connected.clone());
        registry.register("sessions", "Sessions begun", self.sessions.clone());
        registry.register("refused", "Sessions and connections refused", self.refused.clone());
        registry.register(
            "duplicates",
            "Times that two processes showed the same identity",
            self.duplicates.clone(),
        );
        registry.register("silent", "Connections that asked for nothing after TLS", self.silent.clone());
    }

    pub(crate) fn certificate(&self, way: Way, result: Result) {
        self.certificates.get_or_create(&CertificateLabels { way, result }).inc();
    }
}
