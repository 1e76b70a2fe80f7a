//! The only place where a failure becomes an HTTP status.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Error;
use crate::domain::Fault;

/// What went wrong, as RFC 9457 has it, with a stable `code`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The kind in a few words.
    pub(super) title: String,
    /// The HTTP status.
    pub(super) status: u16,
    /// What happened this time.
    pub(super) detail: String,
    /// A stable word for programs.
    pub(super) code: String,
    /// The id to quote when asking about it.
    pub(super) request_id: String,
    /// What is wrong with which field of the request.
    pub(super) errors: Vec<FieldError>,
    /// What to do next; null when there is nothing to say.
    pub(super) next: Option<String>,
    /// More, for programs; null when there is none. With `revision_conflict`: `revision`, `current`
    /// (what is stored) and `yours` (what was asked for).
    #[schema(value_type = Option<Object>)]
    pub(super) details: Option<serde_json::Value>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(super) struct FieldError {
    /// Path of the field, as `labels.region`.
    pub(super) field: String,
    /// A stable word for programs.
    pub(super) code: String,
    /// A sentence for people.
    pub(super) detail: String,
}

/// A failure on its way out. The outermost layer adds the request id and logs.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: Box<str>,
    pub(super) errors: Vec<Fault>,
    pub(super) next: Option<Box<str>>,
    pub(super) details: Option<Box<serde_json::Value>>,
    pub(super) retry_after: Option<Duration>,
    /// The chain of causes at our end, for the log only.
    pub(super) inner: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into().into(),
            errors: Vec::new(),
            next: None,
            details: None,
            retry_after: None,
            inner: None,
        }
    }

    fn then(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into().into());
        self
    }

    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [one] => format!("{}: {}", one.field, one.detail),
            many => format!("{} fields are not as they should be", many.len()),
        };
        Self { errors: faults, ..Self::new(StatusCode::BAD_REQUEST, "invalid", detail) }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time")
    }

    pub(super) fn not_json() -> Self {
        let detail = "the body must be JSON, with Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail)
    }

    pub(super) fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_route", "there is nothing at this path")
            .then("see /api/v1/openapi.json")
    }

    pub(super) fn no_such_method() -> Self {
        let detail = "this path does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", detail).then("see /api/v1/openapi.json")
    }

    pub(super) fn not_signed_in(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_signed_in", detail).then("sign in: culvert login")
    }

    pub(super) fn foreign_origin() -> Self {
        let detail = "a browser may change things only from pages of this very address";
        Self::new(StatusCode::FORBIDDEN, "foreign_origin", detail)
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        let retry_after = Some(Duration::from_secs(5));
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail) }
    }

    pub(super) fn internal(inner: impl Into<String>) -> Self {
        let detail = "the controller failed; its log has more under the request id";
        Self {
            inner: Some(inner.into().into()),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
        }
    }

    /// The body, once the request id is known.
    pub(super) fn body(&self, request_id: String) -> ProblemBody {
        let error = |f: &Fault| FieldError {
            field: f.field.clone(),
            code: f.code.clone().into_owned(),
            detail: f.detail.clone(),
        };
        ProblemBody {
            kind: format!("urn:culvert:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.to_string(),
            code: self.code.to_owned(),
            request_id,
            errors: self.errors.iter().map(error).collect(),
            next: self.next.as_deref().map(str::to_owned),
            details: self.details.as_deref().cloned(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(what) => {
                Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
            }
            Error::Unauthenticated { code, reason } => Self { code, ..Self::not_signed_in(reason) },
            Error::Denied { code, reason, next } => Self::new(StatusCode::FORBIDDEN, code, reason).then(next),
            Error::Conflict { code, reason } => Self::new(StatusCode::CONFLICT, code, reason),
            Error::Refused { code, reason, next, details } => {
                Self { details, ..Self::new(StatusCode::CONFLICT, code, reason).then(next) }
            }
            Error::Away { code, reason, next } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, reason).then(next)
            }
            Error::Invalid(faults) => Self::invalid(faults),
            Error::TooMany { retry_after } => {
                let retry_after = Some(retry_after);
                let detail = "too many attempts from your address";
                Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail) }
            }
            Error::Unavailable(_) => Self {
                inner: Some(chain(&error).into()),
                ..Self::busy("the database cannot be used at the moment")
            },
            Error::Internal { .. } => Self::internal(chain(&error)),
        }
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        text.push_str(": ");
        text.push_str(&below.to_string());
        cause = below.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Rounded up: whoever comes back at the very second is not too early.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response.extensions_mut().insert(self);
        response
    }
}
