//! Recent figures of data services, and of the operators that run them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Filter, Named};
use super::status::Problem;
use super::wire;
use crate::app;
use crate::domain::figures::Back;
use crate::domain::{ClusterRef, DataServiceRef};

/// What was measured lately. It is kept in memory for an hour.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Metrics {
    #[schema(format = DateTime)]
    since: String,
    #[schema(format = DateTime)]
    until: String,
    /// Whether nothing new can come, as the cluster is not connected.
    stale: bool,
    /// By name and labels.
    series: Vec<Series>,
    /// Instances that told nothing when they were last asked.
    problems: Vec<MetricsProblem>,
}

/// One figure over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Series {
    /// After the conventions of Prometheus, as `culvert_postgresql_connections`.
    name: String,
    /// `gauge` or `counter`; a counter begins anew when its instance does.
    kind: &'static str,
    /// `bytes`, `seconds` or `ratio`; null for a plain number.
    unit: Option<&'static str>,
    /// `instance` is always among them.
    labels: BTreeMap<String, String>,
    /// Oldest first.
    samples: Vec<MetricsSample>,
}

/// A figure at a time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricsSample {
    /// When the control plane learned it.
    #[schema(format = DateTime)]
    at: String,
    value: f64,
}

/// An instance that told nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricsProblem {
    instance: String,
    problem: String,
    #[schema(format = DateTime)]
    at: String,
}

/// Which figures.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MetricsQuery {
    /// How far back, as `90s`, `15m` or `1h`, which is the most; five minutes when not given.
    since: Option<String>,
}

impl MetricsQuery {
    fn back(&self) -> Result<Back, Problem> {
        let back = self.since.as_ref().map(|text| ask::word("since", text)).transpose()?;
        Ok(back.unwrap_or_default())
    }
}

/// What the instances of a data service measured lately.
#[utoipa::path(
    get,
    path = "/data-services/{data_service}/metrics",
    tag = "data services",
    params(("data_service" = String, Path, description = "Id or name"), MetricsQuery),
    responses((status = 200, description = "The figures", body = Metrics))
)]
pub(super) async fn metrics(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<DataServiceRef>,
    Filter(query): Filter<MetricsQuery>,
) -> Result<Json<Metrics>, Problem> {
    Ok(Json(shared.app.data_service_figures(&caller, &which, query.back()?).await?.into()))
}

/// What the operator in a cluster measured of itself lately.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/metrics",
    tag = "engines",
    params(("cluster" = String, Path, description = "Id or name"), MetricsQuery),
    responses((status = 200, description = "The figures", body = Metrics))
)]
pub(super) async fn of_operator(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
    Filter(query): Filter<MetricsQuery>,
) -> Result<Json<Metrics>, Problem> {
    Ok(Json(shared.app.operator_figures(&caller, &which, query.back()?).await?.into()))
}

impl From<app::Figures> for Metrics {
    fn from(figures: app::Figures) -> Self {
        Self {
            since: wire::at(figures.since),
            until: wire::at(figures.until),
            stale: figures.stale,
            series: figures.series.into_iter().map(Series::from).collect(),
            problems: figures.problems.into_iter().map(MetricsProblem::from).collect(),
        }
    }
}

impl From<app::Series> for Series {
    fn from(series: app::Series) -> Self {
        let app::Series { key, samples } = series;
        let sample = |(at, value)| MetricsSample { at: wire::at(at), value };
        Self {
            name: key.name().to_owned(),
            kind: key.kind().as_str(),
            unit: key.unit(),
            labels: key.labels().clone(),
            samples: samples.into_iter().map(sample).collect(),
        }
    }
}

impl From<app::SourceProblem> for MetricsProblem {
    fn from(found: app::SourceProblem) -> Self {
        let app::SourceProblem { instance, problem, at } = found;
        Self { instance, problem, at: wire::at(at) }
    }
}
