//! Signing in and out.

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ask::{Asking, Body, Id, NoBody, Source};
use super::me::Somebody;
use super::status::Problem;
use super::{Shared, cookie, wire};

/// A sign-in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// The one-time code, `XXXX-XXXX-XXXX`.
    #[schema(value_type = String)]
    code: SecretString,
}

/// A fresh session.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// The bearer token; a browser also gets it as the cookie `__Host-culvert`.
    token: String,
    #[schema(format = DateTime)]
    expires_at: String,
    user: Somebody,
}

/// A fresh sign-in code.
#[derive(Serialize, ToSchema)]
pub(super) struct SignInCode {
    /// The one-time code, `XXXX-XXXX-XXXX`.
    code: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Sign in with a one-time code. The code itself makes a repetition impossible, so
/// there is no Idempotency-Key here.
#[utoipa::path(
    post,
    path = "/sessions",
    tag = "people",
    security(()),
    request_body = SignIn,
    responses((status = 201, description = "Signed in", body = Session))
)]
pub(super) async fn sign_in(
    State(shared): State<Shared>,
    Source(source): Source,
    Id(id): Id,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // A foreign page must not sign a browser in as somebody else.
    if !cookie::origin_is_not_foreign(&parts) {
        return Err(Problem::foreign_origin());
    }
    let asked: Body<SignIn> = Body::from_request(Request::from_parts(parts, body), &()).await?;
    let signed_in = shared.app.sign_in(asked.value.code.expose_secret(), source, id).await?;
    let cookie = cookie::set(&signed_in.token, shared.app.now(), signed_in.expires_at);
    let session = Session {
        token: signed_in.token.expose().to_owned(),
        expires_at: wire::at(signed_in.expires_at),
        user: Somebody::from(&signed_in.caller),
    };
    let mut response = (StatusCode::CREATED, Json(session)).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Sign out: the session ends at once, and what it holds open with it.
#[utoipa::path(
    delete,
    path = "/sessions/current",
    tag = "people",
    responses((status = 204, description = "Signed out"))
)]
pub(super) async fn sign_out(
    State(shared): State<Shared>,
    Asking(caller): Asking,
) -> Result<impl IntoResponse, Problem> {
    shared.app.sign_out(&caller).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie::clear())]))
}

/// A code with which the caller can sign in on another device.
#[utoipa::path(
    post,
    path = "/sign-in-codes",
    tag = "people",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe")),
    responses((status = 201, description = "The code", body = SignInCode))
)]
pub(super) async fn create_code(
    State(shared): State<Shared>,
    Asking(caller): Asking,
    asked: NoBody,
) -> Result<(StatusCode, Json<SignInCode>), Problem> {
    let made = shared.app.create_sign_in_code(&caller, asked.once.as_ref()).await?;
    let code = SignInCode { code: made.code.expose().to_owned(), expires_at: wire::at(made.expires_at) };
    Ok((StatusCode::CREATED, Json(code)))
}
