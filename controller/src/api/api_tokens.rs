//! API tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::join_tokens::{PageQuery, network};
use super::status::Problem;
use super::wire;
use crate::app::NewApiToken;
use crate::domain::{self, ApiTokenId, Fault, Name, Role, api_token};

/// A new API token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateApiToken {
    /// 1 to 63 letters, digits and . - _ @; unique in the organisation.
    name: String,
    /// `admin` or `reader`.
    role: String,
    /// Life in seconds, from 60 to 366 days.
    ttl_seconds: u64,
    /// Network the token may be used from, as `10.0.0.0/8`.
    cidr: Option<String>,
}

/// A fresh API token: the only time it is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct FreshApiToken {
    /// `tok_…`
    id: String,
    name: String,
    role: &'static str,
    cidr: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// The token, `cva1.…`
    token: String,
}

/// An API token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiToken {
    /// `tok_…`
    id: String,
    name: String,
    /// `admin` or `reader`.
    role: &'static str,
    /// Network it may be used from.
    cidr: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// A page of API tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApiTokenList {
    items: Vec<ApiToken>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

impl From<domain::ApiToken> for ApiToken {
    fn from(token: domain::ApiToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.as_str(),
            cidr: token.network.map(|n| n.to_string()),
            created_at: wire::at(token.created_at),
            expires_at: wire::at(token.expires_at),
        }
    }
}

/// Make an API token for a machine.
#[utoipa::path(
    post,
    path = "/api-tokens",
    tag = "people",
    request_body = CreateApiToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The token", body = FreshApiToken))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: Body<CreateApiToken>,
) -> Result<(StatusCode, Json<FreshApiToken>), Problem> {
    let new = new_token(asked.value)?;
    let made = shared.app.create_api_token(&caller, new, asked.once.as_ref()).await?;
    let fresh = FreshApiToken {
        id: made.id.to_string(),
        name: made.name.to_string(),
        role: made.role.as_str(),
        cidr: made.network.map(|n| n.to_string()),
        created_at: wire::at(made.created_at),
        expires_at: wire::at(made.expires_at),
        token: made.token.expose().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(fresh)))
}

/// The organisation's API tokens, newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/api-tokens",
    tag = "people",
    params(PageQuery),
    responses((status = 200, description = "A page", body = ApiTokenList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<ApiTokenList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let (items, next) = wire::items(shared.app.api_tokens(&caller, after.as_ref(), size).await?);
    Ok(Json(ApiTokenList { items, next }))
}

/// Revoke an API token: what its holder has open ends at once.
#[utoipa::path(
    delete,
    path = "/api-tokens/{token}",
    tag = "people",
    params(("token" = String, Path, description = "Id")),
    responses((status = 204, description = "Revoked"))
)]
pub(super) async fn revoke(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(id): Named<ApiTokenId>,
) -> Result<StatusCode, Problem> {
    shared.app.revoke_api_token(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn new_token(asked: CreateApiToken) -> Result<NewApiToken, Problem> {
    let name = asked.name.parse::<Name>().map_err(|e| e.of("name"));
    let role = asked.role.parse::<Role>().map_err(|e| Fault::new("role", "invalid", e.to_string()));
    let life = api_token::life(asked.ttl_seconds);
    let network = network(asked.cidr.as_deref());
    match (name, role, life, network) {
        (Ok(name), Ok(role), Ok(life), Ok(network)) => Ok(NewApiToken { name, role, life, network }),
        (name, role, life, network) => {
            let faults = [name.err(), role.err(), life.err(), network.err()];
            Err(Problem::invalid(faults.into_iter().flatten().collect()))
        }
    }
}
