//! Clusters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::status::Problem;
use super::wire::{self, Cluster};
use crate::app::{ClusterFilter, Error, NewCluster};
use crate::domain::{ClusterName, ClusterRef, ClusterState, Fault, Labels};

/// A page of clusters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterList {
    items: Vec<Cluster>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// A new cluster.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateCluster {
    /// 1 to 63 lower-case letters, digits and dashes.
    name: String,
    /// With the rules of Kubernetes labels.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Which clusters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ClusterQuery {
    /// Items a page, 1 to 200; 50 when not given.
    limit: Option<u64>,
    /// `next` of the page before.
    after: Option<String>,
    /// Only clusters whose name contains this.
    name: Option<String>,
    /// Only clusters in this state: `pending`, `connected`, `disconnected`, `locked`.
    state: Option<String>,
}

/// Why a cluster is locked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LockCluster {
    /// What whoever is refused will read.
    message: String,
}

/// The organisation's clusters, by name.
#[utoipa::path(
    get,
    path = "/clusters",
    tag = "clusters",
    params(ClusterQuery),
    responses((status = 200, description = "A page", body = ClusterList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<ClusterQuery>,
) -> Result<Json<ClusterList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let state = query.state.as_deref().map(state).transpose()?;
    let filter = ClusterFilter { name: query.name.filter(|n| !n.is_empty()), state };
    let page = shared.app.clusters(&caller, &filter, after.as_ref(), size).await?;
    let (items, next) = wire::items(page);
    Ok(Json(ClusterList { items, next }))
}

/// Make a cluster's record. An agent enrols for it with a join token.
#[utoipa::path(
    post,
    path = "/clusters",
    tag = "clusters",
    request_body = CreateCluster,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The cluster", body = Cluster))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateCluster>,
) -> Result<(StatusCode, Json<Cluster>), Problem> {
    let new = new_cluster(asked.value)?;
    let view = shared.app.create_cluster(&caller, new, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(view.into())))
}

/// One cluster, by id or name.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The cluster", body = Cluster))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<Json<Cluster>, Problem> {
    Ok(Json(shared.app.cluster(&caller, &which).await?.into()))
}

/// Delete a cluster's record and its agent's identity. Nothing that runs in the
/// cluster is touched.
#[utoipa::path(
    delete,
    path = "/clusters/{cluster}",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 204, description = "Deleted"))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<StatusCode, Problem> {
    shared.app.delete_cluster(&caller, &which).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lock a cluster: its tunnel and every live stream end at once.
#[utoipa::path(
    put,
    path = "/clusters/{cluster}/lock",
    tag = "clusters",
    request_body = LockCluster,
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The cluster", body = Cluster))
)]
pub(super) async fn lock(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
    asked: Body<LockCluster>,
) -> Result<Json<Cluster>, Problem> {
    Ok(Json(shared.app.lock_cluster(&caller, &which, &asked.value.message).await?.into()))
}

/// Unlock a cluster.
#[utoipa::path(
    delete,
    path = "/clusters/{cluster}/lock",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 204, description = "Unlocked"))
)]
pub(super) async fn unlock(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<StatusCode, Problem> {
    shared.app.unlock_cluster(&caller, &which).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn new_cluster(asked: CreateCluster) -> Result<NewCluster, Problem> {
    let name = asked.name.parse::<ClusterName>().map_err(|e| vec![e.of("name")]);
    let labels = Labels::parse(asked.labels);
    match (name, labels) {
        (Ok(name), Ok(labels)) => Ok(NewCluster { name, labels }),
        (name, labels) => {
            let faults = [name.err(), labels.err()].into_iter().flatten().flatten().collect();
            Err(Error::Invalid(faults).into())
        }
    }
}

fn state(word: &str) -> Result<ClusterState, Problem> {
    use ClusterState::{Connected, Disconnected, Locked, Pending};
    let found = [Pending, Connected, Disconnected, Locked].into_iter().find(|s| s.as_str() == word);
    found.ok_or_else(|| {
        let detail = "must be pending, connected, disconnected or locked";
        Problem::invalid(vec![Fault::new("state", "invalid", detail)])
    })
}
