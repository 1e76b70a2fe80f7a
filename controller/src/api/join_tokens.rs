//! Join tokens of a cluster.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::ask::{self, Asking, Body, Filter, Named};
use super::status::Problem;
use super::wire;
use crate::app::{App, IssuedJoinToken, NewJoinToken};
use crate::domain::{self, ClusterRef, Fault, JoinTokenId, join_token};

/// A new join token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateJoinToken {
    /// Life in seconds, 60 to 86400; 3600 when not given.
    ttl_seconds: Option<u64>,
    /// Network the token may be used from, as `10.0.0.0/8`.
    cidr: Option<String>,
}

/// A fresh join token: the only time it is shown.
#[derive(Serialize, ToSchema)]
pub(super) struct FreshJoinToken {
    /// `jtk_…`
    id: String,
    /// The token, `cvj1.…`
    token: String,
    #[schema(format = DateTime)]
    expires_at: String,
    helm: Helm,
}

/// How to install the agent.
#[derive(Serialize, ToSchema)]
pub(super) struct Helm {
    /// The chart.
    repo_chart: String,
    /// Values for it; they hold the token.
    values: Values,
    /// The whole command, for a POSIX shell. The token goes in by standard input, so
    /// that no list of processes shows it.
    command: String,
}

/// Values of the agent's chart.
#[derive(Serialize, ToSchema)]
pub(super) struct Values {
    controller: ControllerValues,
    /// The join token.
    token: String,
}

/// Where the agent's controller is.
#[derive(Serialize, ToSchema)]
pub(super) struct ControllerValues {
    /// host:port to dial.
    address: String,
    /// The trust domain.
    domain: String,
}

/// A join token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JoinToken {
    /// `jtk_…`
    id: String,
    /// `active`, `used`, `expired` or `revoked`.
    state: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// Network it may be used from.
    cidr: Option<String>,
    #[schema(format = DateTime)]
    used_at: Option<String>,
    /// Address it was used from.
    used_from: Option<String>,
}

/// A page of join tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JoinTokenList {
    items: Vec<JoinToken>,
    /// Pass it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Items a page, 1 to 200; 50 when not given.
    pub(super) limit: Option<u64>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

/// Make a one-time join token.
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/join-tokens",
    tag = "clusters",
    request_body = CreateJoinToken,
    params(
        ("cluster" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")
    ),
    responses((status = 201, description = "The token", body = FreshJoinToken))
)]
pub(super) async fn create(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
    asked: Body<CreateJoinToken>,
) -> Result<(StatusCode, Json<FreshJoinToken>), Problem> {
    let life = join_token::life(asked.value.ttl_seconds);
    let network = network(asked.value.cidr.as_deref());
    let new = match (life, network) {
        (Ok(life), Ok(network)) => NewJoinToken { life, network },
        (life, network) => {
            return Err(Problem::invalid([life.err(), network.err()].into_iter().flatten().collect()));
        }
    };
    let issued = shared.app.create_join_token(&caller, &which, new, asked.once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(fresh(&shared.app, &issued))))
}

/// The join tokens of a cluster, newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/join-tokens",
    tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name"), PageQuery),
    responses((status = 200, description = "A page", body = JoinTokenList))
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named(which): Named<ClusterRef>,
    Filter(query): Filter<PageQuery>,
) -> Result<Json<JoinTokenList>, Problem> {
    let (size, after) = ask::page(query.limit, query.after.as_deref())?;
    let page = shared.app.join_tokens(&caller, &which, after.as_ref(), size).await?;
    let now = shared.app.now();
    let next = wire::cursor(page.next.as_ref());
    let items = page.items.into_iter().map(|token| shown(token, now)).collect();
    Ok(Json(JoinTokenList { items, next }))
}

/// Take a join token back.
#[utoipa::path(
    delete,
    path = "/clusters/{cluster}/join-tokens/{token}",
    tag = "clusters",
    params(
        ("cluster" = String, Path, description = "Id or name"),
        ("token" = String, Path, description = "Id of the token")
    ),
    responses((status = 204, description = "Taken back"))
)]
pub(super) async fn revoke(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    Named((which, id)): Named<(ClusterRef, JoinTokenId)>,
) -> Result<StatusCode, Problem> {
    shared.app.revoke_join_token(&caller, &which, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The network in a request.
pub(super) fn network(cidr: Option<&str>) -> Result<Option<ipnet::IpNet>, Fault> {
    let wrong = |_| Fault::new("cidr", "invalid", "must be a network such as 10.0.0.0/8 or 2001:db8::/32");
    cidr.map(|text| text.parse().map_err(wrong)).transpose()
}

fn shown(token: domain::JoinToken, now: domain::Time) -> JoinToken {
    JoinToken {
        id: token.id.to_string(),
        state: token.state(now).as_str(),
        created_at: wire::at(token.created_at),
        expires_at: wire::at(token.expires_at),
        cidr: token.network.map(|n| n.to_string()),
        used_at: token.used.as_ref().map(|used| wire::at(used.at)),
        used_from: token.used.as_ref().map(|used| used.from.to_string()),
    }
}

/// The release and namespace of the agent.
const RELEASE: &str = "culvert-agent";

fn fresh(app: &App, issued: &IssuedJoinToken) -> FreshJoinToken {
    let token = issued.token.expose().to_owned();
    let (address, domain) = (app.public_address().to_string(), app.domain().to_string());
    let chart = app.chart().to_owned();
    // None of these holds a character that a shell, YAML or helm's --set would read
    // as its own: the configuration and the token's alphabet see to that.
    let command = format!(
        "helm upgrade --install {RELEASE} {chart} --namespace {RELEASE} --create-namespace \
         --set-string controller.address={address} --set-string controller.domain={domain} \
         --values - <<'VALUES'\ntoken: {token}\nVALUES\n"
    );
    let values = Values { controller: ControllerValues { address, domain }, token: token.clone() };
    FreshJoinToken {
        id: issued.id.to_string(),
        token,
        expires_at: wire::at(issued.expires_at),
        helm: Helm { repo_chart: chart, values, command },
    }
}
