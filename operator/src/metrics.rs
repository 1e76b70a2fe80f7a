//! What is counted. Labels are enums of ours, never names of a tenant's objects.
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A controller, as label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Controller {
    /// Of data planes.
    DataPlane,
    /// Of data services.
    DataService,
    /// Of databases.
    Database,
    /// Of backup targets.
    BackupTarget,
    /// Of backups.
    Backup,
    /// Of backup schedules.
    BackupSchedule,
    /// Of restores.
    Restore,
}

/// How a reconcile ended, as label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// Well.
    Ok,
    /// With an error; it is tried again.
    Error,
    /// It took too long and was cut off.
    Timeout,
    /// By a panic.
    Panic,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    controller: Controller,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    controller: Controller,
}

/// The operator's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    reconciles: Family<Ended, Counter>,
    seconds: Family<Of, Histogram, fn() -> Histogram>,
    failing: Family<Of, Gauge>,
    leading: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            // 5 ms to 40 s: a reconcile is cut off after a minute.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14))),
            failing: Family::default(),
            leading: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Notes the end of a reconcile.
    pub(crate) fn ended(&self, controller: Controller, outcome: Outcome, seconds: f64) {
        self.reconciles.get_or_create(&Ended { controller, outcome }).inc();
        self.seconds.get_or_create(&Of { controller }).observe(seconds);
    }

    /// Notes how many objects fail at present.
    pub(crate) fn failing(&self, controller: Controller, count: usize) {
        self.failing.get_or_create(&Of { controller }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes whether this process leads.
    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// A registry with all of them.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("culvert_operator");
        registry.register("reconciles", "Reconciles that ended", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time that a reconcile took",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("failing_objects", "Objects whose last reconcile failed", self.failing.clone());
        registry.register("leading", "Whether this process leads", self.leading.clone());
        registry
    }
}
