//! What the agents' room counts, and what the tunnel's hub counts itself.

use std::fmt;

use culvert_tunnel::Hub;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
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
    pub(crate) sessions: Counter,
    pub(crate) refused: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) silent: Counter,
}

impl AgentMetrics {
    pub(crate) fn register(&self, registry: &mut Registry, hub: &Hub) {
        let registry = registry.sub_registry_with_prefix("agents");
        registry.register_collector(Box::new(HubCollector(hub.clone())));
        registry.register("certificates", "Requests for certificates", self.certificates.clone());
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

/// Reads the hub's own counts when somebody asks.
struct HubCollector(Hub);

impl fmt::Debug for HubCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubCollector")
    }
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.counts();
        for (name, help, value) in [
            ("connected", "Agents with a session", counts.sessions),
            ("connections", "Connections with or without a session", counts.connections),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("calls", "Calls to agents", counts.calls),
            ("calls_busy", "Calls refused because too many waited", counts.busy),
            ("calls_rejected", "Calls that agents rejected", counts.rejected),
            ("calls_reaped", "Calls ended because nobody read them while memory was short", counts.reaped),
            ("answers_unknown", "Answers to calls that nobody waits for", counts.unknown_answers),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
