//! What the edge counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::name::Door;

/// How a connection's arrival ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    Passed,
    /// TLS failed, for example because the client did not trust the certificate.
    Tls,
    Timeout,
    /// The door's connections were all in use, or the pace of agents was exceeded.
    Full,
}

/// Connections that ended before they named a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Early {
    /// Bytes that are not TLS.
    NotTls,
    /// A broken ClientHello, or none.
    Hello,
    Timeout,
    /// Too many handshakes of one network.
    Source,
    /// `accept` itself failed, for example for want of file descriptors.
    Accept,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HandshakeLabels {
    pub(crate) door: Door,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EarlyLabels {
    pub(crate) cause: Early,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DoorLabels {
    pub(crate) door: Door,
}

/// The edge's metrics; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct EdgeMetrics {
    handshakes: Family<HandshakeLabels, Counter>,
    early: Family<EarlyLabels, Counter>,
    connections: Family<DoorLabels, Gauge>,
}

impl EdgeMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("edge");
        registry.register("handshakes", "TLS handshakes by door and outcome", self.handshakes.clone());
        registry.register(
            "turned_away",
            "Connections that ended before they named a door",
            self.early.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
    }

    pub(crate) fn handshake(&self, door: Door, outcome: Outcome) {
        self.handshakes.get_or_create(&HandshakeLabels { door, outcome }).inc();
    }

    pub(crate) fn early(&self, cause: Early) {
        self.early.get_or_create(&EarlyLabels { cause }).inc();
    }

    /// Counts an open connection until the guard is dropped.
    pub(crate) fn open(&self, door: Door) -> OpenGuard {
        let gauge = self.connections.get_or_create(&DoorLabels { door }).clone();
        gauge.inc();
        OpenGuard(gauge)
    }
}

/// Keeps one connection counted.
#[derive(Debug)]
pub(crate) struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
