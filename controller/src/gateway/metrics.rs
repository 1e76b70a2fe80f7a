//! What the gateway counts.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request::{RequestInfo, Verb};

/// What a request is for, coarsely: few enough to be labels, apart enough to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum VerbClass {
    Read,
    Watch,
    Write,
    /// Logs, exec, attach, port-forward and proxies.
    Session,
    /// Anything else, such as a path that could not be read.
    Other,
}

impl VerbClass {
    pub(crate) fn of(info: Option<&RequestInfo>) -> VerbClass {
        match info {
            Some(info) if info.verb == Verb::Watch => VerbClass::Watch,
            Some(info) if info.streams() => VerbClass::Session,
            Some(info) => match info.verb {
                Verb::Get | Verb::List => VerbClass::Read,
                Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
                    VerbClass::Write
                }
                Verb::Watch | Verb::Proxy | Verb::Other => VerbClass::Other,
            },
            None => VerbClass::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum CodeClass {
    Upgraded,
    Success,
    Redirect,
    Caller,
    Server,
}

impl CodeClass {
    fn of(status: StatusCode) -> CodeClass {
        match status.as_u16() {
            ..200 => CodeClass::Upgraded,
            200..300 => CodeClass::Success,
            300..400 => CodeClass::Redirect,
            400..500 => CodeClass::Caller,
            500.. => CodeClass::Server,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Direction {
    Up,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: VerbClass,
    code: CodeClass,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: VerbClass,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: Direction,
}

/// The gateway's metrics; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    bytes: Family<DirectionLabels, Counter>,
    open: Family<VerbLabels, Gauge>,
    cut: Counter,
}

/// Seconds until the answer's head, from a fast GET to the API server's own limit of a minute.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0];

impl Default for GatewayMetrics {
    fn default() -> Self {
        GatewayMetrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            bytes: Family::default(),
            open: Family::default(),
            cut: Counter::default(),
        }
    }
}

impl GatewayMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "requests",
            "Requests by what they are for and how they were answered",
            self.requests.clone(),
        );
        registry.register("answer_seconds", "Time until the head of the answer", self.seconds.clone());
        registry.register("bytes", "Bytes of bodies and upgraded connections", self.bytes.clone());
        registry.register("open", "Requests under way, streams included", self.open.clone());
        registry.register("cut", "Requests ended because the caller's right ended", self.cut.clone());
    }

    pub(crate) fn answered(&self, verb: VerbClass, status: StatusCode, after: Duration) {
        self.requests.get_or_create(&RequestLabels { verb, code: CodeClass::of(status) }).inc();
        self.seconds.get_or_create(&VerbLabels { verb }).observe(after.as_secs_f64());
    }

    pub(crate) fn ended(&self, up: u64, down: u64, was_cut: bool) {
        self.bytes.get_or_create(&DirectionLabels { direction: Direction::Up }).inc_by(up);
        self.bytes.get_or_create(&DirectionLabels { direction: Direction::Down }).inc_by(down);
        if was_cut {
            self.cut.inc();
        }
    }

    /// Counts a request as under way until the guard is dropped.
    pub(crate) fn open(&self, verb: VerbClass) -> OpenGuard {
        let gauge = self.open.get_or_create(&VerbLabels { verb }).clone();
        gauge.inc();
        OpenGuard(gauge)
    }
}

/// Keeps one request counted.
#[derive(Debug)]
pub(crate) struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
