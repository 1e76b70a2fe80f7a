//! What a request asks: who, with which body and filter. Refusals are problems.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::status::Problem;
use super::{Shared, cookie, unreadable};
use crate::app::Once;
use crate::domain::{Caller, Cursor, Fault, PageSize, RequestId};

/// The most bytes a body may have.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(15);

/// Where the request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source(pub(super) IpAddr);

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // Without it a token's network could not be checked, so nothing is let in.
        let info = info.ok_or_else(|| Problem::internal("the request carries no source address"))?;
        Ok(Self(info.0.ip().to_canonical()))
    }
}

/// The request's id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id(pub(super) RequestId);

impl<S: Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let id = parts.extensions.get::<RequestId>().copied();
        id.map(Self).ok_or_else(|| Problem::internal("the request has no id"))
    }
}

/// The authenticated caller.
#[derive(Debug, Clone)]
pub(super) struct Asking(pub(super) Caller);

impl FromRequestParts<Shared> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let Source(source) = Source::from_request_parts(parts, shared).await?;
        let Id(id) = Id::from_request_parts(parts, shared).await?;
        let token = match bearer(&parts.headers)? {
            Some(token) => token,
            None => {
                let token = cookie::token(&parts.headers);
                let token = token.ok_or_else(|| Problem::not_signed_in("this needs a credential"))?;
                if !cookie::is_safe(&parts.method) && !cookie::same_origin(parts) {
                    return Err(Problem::foreign_origin());
                }
                token
            }
        };
        let caller = shared.app.authenticate_bearer(&token, source).await?;
        Ok(Self(caller.with_request(id)))
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let wrong = || Problem::not_signed_in("the Authorization header must be one Bearer token");
    if more.is_some() {
        return Err(wrong());
    }
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim().to_owned())) } else { Err(wrong()) }
}

/// A JSON body, and the caller's key when the request may be repeated.
#[derive(Debug)]
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) once: Option<Once>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        no_query(&parts)?;
        if !is_json(&parts.headers) {
            return Err(Problem::not_json());
        }
        let bytes = read(body).await?;
        let value = unreadable::body(&bytes)?;
        Ok(Self { value, once: once(&parts, &bytes)? })
    }
}

/// The caller's key of a request that has no body.
#[derive(Debug)]
pub(super) struct NoBody {
    pub(super) once: Option<Once>,
}

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        no_query(&parts)?;
        let bytes = read(body).await?;
        // `{}` is what some clients send for nothing.
        if !matches!(bytes.trim_ascii(), b"" | b"{}") {
            return Err(Problem::malformed("this request takes no body"));
        }
        Ok(Self { once: once(&parts, b"")? })
    }
}

async fn read(body: axum::body::Body) -> Result<Vec<u8>, Problem> {
    use http_body_util::{BodyExt, LengthLimitError, Limited};
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await;
    match collected {
        Err(_) => Err(Problem::too_slow()),
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Problem::too_large(BODY_MAX))
        }
        Ok(Err(_)) => Err(Problem::malformed("the body broke off")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn once(parts: &Parts, body: &[u8]) -> Result<Option<Once>, Problem> {
    let Some(key) = parts.headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().unwrap_or_default();
    let mut hash = Sha256::new();
    // As it was sent: a nested router sees it shortened.
    let uri = parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |o| &o.0);
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), body] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    Ok(Some(Once::new(key, hash.finalize().into())?))
}

/// Says that somebody reads the query.
#[derive(Debug, Clone, Copy)]
struct QueryRead;

/// What changes something must not mean more than is understood: a query that nobody reads is refused.
fn no_query(parts: &Parts) -> Result<(), Problem> {
    if parts.extensions.get::<QueryRead>().is_some() {
        return Ok(());
    }
    unreadable::query::<Nothing>(&parts.uri).map(drop)
}

/// No parameter at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The query of the request.
#[derive(Debug)]
pub(super) struct Filter<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = unreadable::query(&parts.uri)?;
        parts.extensions.insert(QueryRead);
        Ok(Self(query))
    }
}

/// What the path names. A text that can name nothing names nothing: not found.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Named<T>
where
    T: NamedByPath,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(texts) = Path::<T::Texts>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::malformed("the path cannot be read"))?;
        T::named(texts).map(Self)
    }
}

/// What a path can name.
pub(super) trait NamedByPath: Sized {
    /// The parts of the path.
    type Texts: DeserializeOwned + Send;
    /// What they name.
    fn named(texts: Self::Texts) -> Result<Self, Problem>;
}

macro_rules! named_by_path {
    ($($type:ty, $what:literal;)*) => {$(
        impl NamedByPath for $type {
            type Texts = String;

            fn named(text: String) -> Result<Self, Problem> {
                text.parse().map_err(|_| crate::app::Error::NotFound($what).into())
            }
        }
    )*};
}

named_by_path! {
    crate::domain::ClusterRef, "cluster";
    crate::domain::AgentId, "agent";
    crate::domain::ApiTokenId, "API token";
    crate::domain::ProjectRef, "project";
    crate::domain::TemplateRef, "template";
    crate::domain::BackupTargetRef, "backup target";
    crate::domain::BackupScheduleRef, "backup schedule";
    crate::domain::DataServiceRef, "data service";
    crate::domain::BackupRef, "backup";
    crate::domain::RestoreRef, "restore";
    crate::domain::OperationId, "operation";
    super::engines::EngineName, "engine";
}

impl NamedByPath for (crate::domain::ClusterRef, crate::domain::JoinTokenId) {
    type Texts = (String, String);

    fn named((cluster, token): (String, String)) -> Result<Self, Problem> {
        let cluster = NamedByPath::named(cluster)?;
        let token = token.parse().map_err(|_| crate::app::Error::NotFound("join token"))?;
        Ok((cluster, token))
    }
}

/// A name in a body, or the fault of its field.
pub(super) fn word<T>(field: &str, text: &str) -> Result<T, Problem>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| Problem::invalid(vec![Fault::new(field, "invalid", error.to_string())]))
}

/// A reference in a body or a query: a text that can name nothing names nothing.
pub(super) fn reference<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| crate::app::Error::NotFound(what).into())
}

/// A word of a closed list in a query.
pub(super) fn one_of<T: std::str::FromStr>(
    field: &str,
    text: Option<&str>,
    words: &[&str],
) -> Result<Option<T>, Problem> {
    let wrong = |_| {
        let detail = format!("must be one of {}", words.join(", "));
        Problem::invalid(vec![Fault::new(field, "invalid", detail)])
    };
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

/// The page that a query asks for.
pub(super) fn page(limit: Option<u64>, after: Option<&str>) -> Result<(PageSize, Option<Cursor>), Problem> {
    let size = PageSize::parse(limit).map_err(|fault| Problem::invalid(vec![fault]))?;
    let after = after.map(str::parse).transpose().map_err(crate::app::Error::from)?;
    Ok((size, after))
}
