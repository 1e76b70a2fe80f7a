//! Agents.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Filter, Named};
use super::join_tokens::PageQuery;
use super::status::Problem;
use super::wire::{self, Agent};
use crate::domain::AgentId;

/// A page of agents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentList {
    items: Vec<Agent>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// The organisation's agents, newest first; those that were replaced too.
#[utoipa::path(
    get,
    path = "/agents",
    tag = "agents",
    params(PageQuery),
    responses((status = 200, description = "A page", body = AgentList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<AgentList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let (items, next) = wire::items(shared.app.agents(&caller, after.as_ref(), size).await?);
    Ok(Json(AgentList { items, next }))
}

/// One agent.
#[utoipa::path(
    get,
    path = "/agents/{agent}",
    tag = "agents",
    params(("agent" = String, Path, description = "Id")),
    responses((status = 200, description = "The agent", body = Agent))
)]
pub(super) async fn get(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(id): Named<AgentId>,
) -> Result<Json<Agent>, Problem> {
    Ok(Json(shared.app.agent(&caller, id).await?.into()))
}
