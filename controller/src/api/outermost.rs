//! Around every request: its id, headers that every answer has, and one line of the
//! log for every failure.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::status::Problem;
use crate::domain::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn outermost(mut request: Request, next: Next) -> Response {
    let id = RequestId::generate();
    request.extensions_mut().insert(id);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log(&problem, id, method.as_str(), &path);
        response = render(&problem, id, response);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    headers.insert(
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000; includeSubDomains"),
    );
    response
}

/// The answer with the problem as its body; headers of the refusal stay.
fn render(problem: &Problem, id: RequestId, bare: Response) -> Response {
    let body = axum::Json(problem.body(id.to_string()));
    let mut response = (problem.status, body).into_response();
    let kept = [header::WWW_AUTHENTICATE, header::RETRY_AFTER, header::ALLOW, header::SET_COOKIE];
    for name in kept {
        if let Some(value) = bare.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn log(problem: &Problem, id: RequestId, method: &str, path: &str) {
    let status = problem.status.as_u16();
    match &problem.inner {
        Some(error) => {
            tracing::error!(request_id = %id, method, path, status, code = problem.code, error, "request failed");
        }
        None => {
            tracing::debug!(request_id = %id, method, path, status, code = problem.code, "request refused")
        }
    }
}
