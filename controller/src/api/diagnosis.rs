//! What is the matter with a cluster.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{Asking, Named};
use super::status::Problem;
use super::wire::{self, Attempt};
use crate::domain::{self, ClusterRef};

/// The six lights of a cluster, lit by what the controller itself observed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diagnosis {
    /// The cluster's state.
    state: &'static str,
    /// One light per stage, in order.
    lights: Vec<Light>,
    /// The latest attempts to enrol, newest first, at most 20.
    attempts: Vec<Attempt>,
    /// What is going on, in one sentence.
    summary: String,
    /// What to do next; null when there is nothing to do.
    next: Option<String>,
}

/// One light.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Light {
    /// `reached`, `tls`, `token`, `identity`, `tunnel` or `capabilities`.
    stage: &'static str,
    /// `on`, `off` or `failed`.
    state: &'static str,
    #[schema(format = DateTime)]
    at: Option<String>,
    source: Option<String>,
    detail: Option<String>,
}

impl From<domain::Light> for Light {
    fn from(light: domain::Light) -> Self {
        Self {
            stage: light.stage.as_str(),
            state: light.state.as_str(),
            at: light.at.map(wire::at),
            source: light.source.map(|s| s.to_string()),
            detail: Some(light.detail).filter(|d| !d.is_empty()),
        }
    }
}

/// How far a cluster's agent came, and what stopped it.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/diagnosis",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The diagnosis", body = Diagnosis))
)]
pub(super) async fn diagnosis(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
) -> Result<Json<Diagnosis>, Problem> {
    let (found, attempts) = shared.app.diagnosis(&caller, &which).await?;
    Ok(Json(Diagnosis {
        state: found.state.as_str(),
        lights: found.lights.into_iter().map(Light::from).collect(),
        attempts: attempts.into_iter().map(Attempt::from).collect(),
        summary: found.summary,
        next: Some(found.next).filter(|n| !n.is_empty()),
    }))
}
