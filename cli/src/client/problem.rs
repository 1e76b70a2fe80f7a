//! Errors of the API and of the way to it, as one kind of failure with an exit code.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use culvert_pki::tls::TlsFailure;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Endpoint};
use crate::failure::{Exit, Failure};

/// `application/problem+json` as the API writes it.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
    #[serde(default)]
    errors: Vec<FieldError>,
    next: Option<String>,
    details: Option<Details>,
}

/// Both versions of what two people changed.
#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    current: Value,
    #[serde(default)]
    yours: Value,
}

#[derive(Debug, Deserialize)]
struct FieldError {
    #[serde(default)]
    field: String,
    detail: Option<String>,
    code: Option<String>,
}

/// The failure that an answer of 400 or more stands for.
pub(super) fn from_answer(answer: &Answer) -> Failure {
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    let exit = exit_of(answer.status);
    // The plain name of the status tells less than the detail does.
    let title = problem.title.filter(|title| Some(title.as_str()) != answer.status.canonical_reason());
    let mut said = [title, problem.detail].into_iter().flatten();
    let mut failure = if exit == Exit::NotSignedIn {
        Failure::not_signed_in("the session has ended, or was never valid")
    } else {
        let what = said.next().unwrap_or_else(|| format!("the controller answered {}", answer.status));
        Failure::new(exit, what)
    };
    failure.why = said.last().or_else(|| failure.why.take());
    if failure.next.is_none() {
        failure.next = problem.next;
    }
    failure.code = problem.code;
    let header = || Some(answer.headers.get("x-request-id")?.to_str().ok()?.to_owned());
    failure.request_id = problem.request_id.or_else(header);
    failure.fields = problem
        .errors
        .into_iter()
        .map(|e| (e.field, e.detail.or(e.code).unwrap_or_else(|| "is not valid".to_owned())))
        .collect();
    if let Some(details) = problem.details {
        differences("spec", &details.current, &details.yours, &mut failure.fields);
    }
    // A problem with one field has told of it in its first line.
    let repeated = |(field, detail): &(String, String)| failure.what == format!("{field}: {detail}");
    if failure.fields.len() == 1 && failure.fields.iter().all(repeated) {
        failure.fields.clear();
    }
    failure
}

/// Where two versions differ, as fields with what is there and what was wanted.
fn differences(path: &str, current: &Value, yours: &Value, into: &mut Vec<(String, String)>) {
    match (current, yours) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                differences(&format!("{path}.{name}"), &of(one), &of(other), into);
            }
        }
        _ if current == yours => {}
        _ => {
            into.push((path.to_owned(), format!("is {} now, and yours is {}", plain(current), plain(yours))))
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Exit::Usage
        }
        StatusCode::UNAUTHORIZED => Exit::NotSignedIn,
        StatusCode::FORBIDDEN => Exit::Refused,
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}

/// The failure that an error on the way stands for: each kind has its own next step.
pub(super) fn from_transport(error: &reqwest::Error, endpoint: &Endpoint) -> Failure {
    let failure = Failure::new(Exit::Unreachable, format!("cannot reach {}", endpoint.authority()));
    if let Some(tls) = TlsFailure::find(error) {
        return from_tls(failure, tls);
    }
    if error.is_timeout() && !error.is_connect() {
        return silent(endpoint);
    }
    let cause = causes(error);
    let next = match cause_kind(error) {
        _ if cause.contains("tunnel") || cause.contains("proxy") => {
            "check the proxy that HTTPS_PROXY names, or set NO_PROXY; culvert doctor tells more"
        }
        Some(io::ErrorKind::ConnectionRefused) => "check that the controller runs and that the port is right",
        _ => "culvert doctor",
    };
    failure.because(cause).next(next)
}

/// No answer in time.
pub(super) fn silent(endpoint: &Endpoint) -> Failure {
    Failure::new(Exit::Unreachable, format!("{} did not answer in time", endpoint.authority()))
        .next("culvert doctor, or give more time with --timeout")
}

fn from_tls(failure: Failure, tls: TlsFailure) -> Failure {
    let next = match &tls {
        TlsFailure::Intercepted { .. } => {
            "ask whoever runs that proxy to let this host pass without inspection; culvert doctor tells more"
        }
        TlsFailure::WrongPin { .. } => {
            "if the controller was made anew, run: culvert login URL --pin PIN, with the pin it printed"
        }
        TlsFailure::NotYetValid { .. } | TlsFailure::Expired { .. } => {
            "check the clock of this machine; culvert doctor tells more"
        }
        TlsFailure::WrongName { .. } => {
            "use one of these names, or add this one to public_names at the controller"
        }
        TlsFailure::NotTls => "check the port: something else answers there",
        _ => "culvert doctor",
    };
    let mut failure = failure.because(&tls).next(next);
    failure.code = Some(tls.code().to_owned());
    failure.tls = Some(tls);
    failure
}

fn cause_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

/// An error and what caused it, each said once.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        // hyper's names for its own layers tell a person nothing.
        let layer = text.starts_with("client error (") || text == "tcp connect error";
        let text = text.trim_start_matches("tcp connect error: ").to_owned();
        if !layer && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-request-id", http::HeaderValue::from_static("req_header"));
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_problem_becomes_what_why_next_and_request() {
        let failure = from_answer(&answer(
            400,
            r#"{"type":"about:blank","title":"the request is not valid","status":400,"detail":"one field",
               "code":"invalid","request_id":"req_1","next":"mend it",
               "errors":[{"field":"name","code":"too_long","detail":"is too long"},{"field":"x","code":"unknown"}]}"#,
        ));
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            (failure.what.as_str(), failure.why.as_deref()),
            ("the request is not valid", Some("one field"))
        );
        assert_eq!(failure.request_id.as_deref(), Some("req_1"));
        assert_eq!(failure.fields.len(), 2);
        assert_eq!(failure.fields.get(1).unwrap().1, "unknown");
    }

    #[test]
    fn a_single_fault_is_told_once() {
        let body = r#"{"title":"Bad Request","detail":"name: is too long","errors":[{"field":"name","detail":"is too long"}]}"#;
        let failure = from_answer(&answer(400, body));
        assert_eq!((failure.what.as_str(), failure.fields.len()), ("name: is too long", 0));
    }

    #[test]
    fn the_name_of_a_status_gives_way_to_the_detail() {
        let failure =
            from_answer(&answer(404, r#"{"title":"Not Found","detail":"there is no such cluster"}"#));
        assert_eq!((failure.what.as_str(), failure.why.as_deref()), ("there is no such cluster", None));
    }

    #[test]
    fn an_answer_that_is_no_problem_still_has_an_exit_code() {
        let failure = from_answer(&answer(502, "<html>bad gateway</html>"));
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(failure.request_id.as_deref(), Some("req_header"));
        assert!(failure.what.contains("502"), "{}", failure.what);
    }

    #[test]
    fn a_missing_session_always_points_to_login() {
        let failure = from_answer(&answer(401, "{}"));
        assert_eq!((failure.exit, failure.next.as_deref()), (Exit::NotSignedIn, Some("culvert login")));
    }
}
