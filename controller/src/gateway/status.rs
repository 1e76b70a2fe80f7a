//! Refusals as Kubernetes `Status` objects, so that kubectl and client libraries print them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// Why the gateway itself does not carry a request out. The wording of `message` follows
/// `Error from server (<reason>):` at the caller's terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// A stable word for programs, and for the audit.
    pub(crate) cause: &'static str,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u32>,
}

/// Kubernetes' reasons, `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Reason::BadRequest => StatusCode::BAD_REQUEST,
            Reason::Unauthorized => StatusCode::UNAUTHORIZED,
            Reason::Forbidden => StatusCode::FORBIDDEN,
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Reason::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Reason::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Reason::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason, cause: &'static str, message: impl Into<String>) -> Self {
        Refusal { reason, message: message.into(), cause, retry_after: None }
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Refusal { retry_after: Some(seconds), ..self }
    }

    /// The answer, generic over how the caller holds a short body.
    pub(crate) fn answer<B: From<Bytes>>(&self, request_id: &str) -> Response<B> {
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: &self.message,
            reason: self.reason.as_str(),
            details: Details {
                causes: vec![
                    Cause { reason: self.cause, message: &self.message },
                    Cause { reason: "request_id", message: request_id },
                ],
                retry_after_seconds: self.retry_after,
            },
            code: self.reason.status().as_u16(),
        };
        // Plain text and numbers always serialise.
        let body = serde_json::to_vec(&status).unwrap_or_default();
        let mut answer = Response::new(B::from(body.into()));
        *answer.status_mut() = self.reason.status();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

/// `metav1.Status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    reason: &'static str,
    details: Details<'a>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    causes: Vec<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'a str,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_kubectl_reads() {
        let refusal = Refusal::new(
            Reason::ServiceUnavailable,
            "agent_offline",
            "the agent of cluster eu is not connected",
        )
        .retry_after(5);
        let answer: Response<Bytes> = refusal.answer("req_1");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()[RETRY_AFTER].as_bytes()),
            (503, b"5".as_slice())
        );
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the agent of cluster eu is not connected", "reason": "ServiceUnavailable", "code": 503,
                "details": { "retryAfterSeconds": 5, "causes": [
                    { "reason": "agent_offline", "message": "the agent of cluster eu is not connected" },
                    { "reason": "request_id", "message": "req_1" },
                ]},
            })
        );
    }
}
