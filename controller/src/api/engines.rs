//! Engines: the catalogue, and what a cluster can really run.

use axum::Json;
use axum::extract::State;
use culvert_engines::catalogue;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{Asking, Named};
use super::status::Problem;
use super::wire;
use crate::app::Error;
use crate::domain::ClusterRef;

/// Every engine of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EngineList {
    /// `name`, `title`, `releases`, `parameters`, `limits`, `supports` …
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
}

/// What a cluster can run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterEngineList {
    items: Vec<ClusterEngine>,
}

/// An engine's version in a cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterEngine {
    engine: String,
    version: String,
    image: String,
    /// Whether it can be run.
    ready: bool,
    /// Why not.
    message: String,
}

/// What a cluster's operator told of the cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DataPlane {
    /// `cls_…`
    cluster_id: String,
    /// The status of its DataPlane, verbatim; null when no operator has told anything.
    #[schema(value_type = Option<Object>)]
    status: Option<Value>,
    #[schema(format = DateTime)]
    observed_at: Option<String>,
    /// Whether it may be out of date, as the cluster is not connected.
    stale: bool,
}

/// Every engine that can be deployed, with its releases and parameters.
#[utoipa::path(
    get,
    path = "/engines",
    tag = "engines",
    responses((status = 200, description = "All of them", body = EngineList))
)]
pub(super) async fn list(_: Asking) -> Result<Json<EngineList>, Problem> {
    let items: Result<Vec<Value>, _> = catalogue().engines().map(serde_json::to_value).collect();
    let items = items.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Json(EngineList { items }))
}

/// One engine, by name.
#[utoipa::path(
    get,
    path = "/engines/{engine}",
    tag = "engines",
    params(("engine" = String, Path, description = "Name, such as `postgresql`")),
    responses((status = 200, description = "The engine", body = Object))
)]
pub(super) async fn get(
    _: Asking,
    Named(EngineName(name)): Named<EngineName>,
) -> Result<Json<Value>, Problem> {
    let engine = catalogue().engine(&name).ok_or(Error::NotFound("engine"))?;
    serde_json::to_value(engine).map(Json).map_err(|error| Problem::internal(error.to_string()))
}

/// Which engine versions a cluster can really run, as its operator says.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/engines",
    tag = "engines",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, description = "All of them", body = ClusterEngineList))
)]
pub(super) async fn of_cluster(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<Json<ClusterEngineList>, Problem> {
    let plane = shared.app.data_plane(&caller, &which).await?;
    let items = plane.engines().into_iter().map(|state| ClusterEngine {
        engine: state.engine,
        version: state.version,
        image: state.image,
        ready: state.ready,
        message: state.message,
    });
    Ok(Json(ClusterEngineList { items: items.collect() }))
}

/// What a cluster's operator told of the cluster: checks, versions, capabilities.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/data-plane",
    tag = "engines",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The data plane", body = DataPlane))
)]
pub(super) async fn data_plane(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<Json<DataPlane>, Problem> {
    let plane = shared.app.data_plane(&caller, &which).await?;
    Ok(Json(DataPlane {
        cluster_id: plane.cluster.to_string(),
        status: plane.status,
        observed_at: plane.observed_at.map(wire::at),
        stale: plane.stale,
    }))
}

/// The name of an engine in a path.
#[derive(Debug)]
pub(super) struct EngineName(String);

impl std::str::FromStr for EngineName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}
