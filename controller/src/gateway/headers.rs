//! Which header fields pass the gateway, each way.
//!
//! Both lists name what passes; everything else stays. Towards the cluster that keeps out
//! credentials (the agent has its own) and impersonation (the gateway says in whose name).
//! Towards the caller it keeps a cluster from setting cookies, CORS, HSTS or Alt-Svc on the
//! gateway's name, which all clusters share.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::request::RequestInfo;
use super::status::{Reason, Refusal};

/// Fields of a request that pass, in lower case.
const REQUEST: [&str; 28] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "kubectl-command",
    "kubectl-session",
    "pragma",
    "range",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-requested-with",
    "x-stream-protocol-version",
    "x-kubernetes-request-timeout",
    "expect",
];

/// Fields of an answer that pass, in lower case. `location` passes rewritten.
const ANSWER: [&str; 25] = [
    "accept-ranges",
    "allow",
    "audit-id",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "vary",
    "warning",
    "x-kubernetes-pf-flowschema-uid",
    "x-kubernetes-pf-prioritylevel-uid",
    "x-stream-protocol-version",
    "x-content-type-options",
];

/// Kubernetes takes a bearer token in a WebSocket subprotocol that begins so.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// A caller that names another user is told so, instead of acting under its own name unawares.
pub(crate) fn refuse_impersonation(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        let message = "impersonation through the gateway is not allowed: requests are carried out in the name of the caller; remove --as, --as-group and --as-uid, or the act-as fields of the kubeconfig";
        return Err(Refusal::new(Reason::Forbidden, "impersonation", message));
    }
    Ok(())
}

/// The fields to forward. `upgrade` is the protocol the caller asks to change to.
pub(crate) fn towards_cluster(from: &HeaderMap, upgrade: Option<&HeaderValue>) -> HeaderMap {
    let mut to = pick(from, &REQUEST);
    // The gateway has answered an `expect` itself by beginning to read.
    to.remove(header::EXPECT);
    strip_token_protocols(&mut to);
    if let Some(protocol) = upgrade {
        to.insert(header::UPGRADE, protocol.clone());
        to.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    to
}

/// The fields to hand back. `base` is the path of the cluster at the gateway, `/clusters/<id>`.
pub(crate) fn towards_caller(from: &HeaderMap, base: &str, info: &RequestInfo) -> HeaderMap {
    let mut to = pick(from, &ANSWER);
    if let Some(location) = from.get(header::LOCATION).and_then(|location| rewritten(location, base)) {
        to.insert(header::LOCATION, location);
    }
    let is_proxied = info.resource.as_ref().is_some_and(|r| r.subresource == "proxy");
    if is_proxied || !is_data(to.get(header::CONTENT_TYPE)) {
        // Pages of a program in a cluster must not run as pages of the gateway.
        to.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        to.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    to
}

/// The fields that complete a 101.
pub(crate) fn upgraded(from: &HeaderMap) -> HeaderMap {
    let mut to = pick(from, &ANSWER);
    to.remove(header::CONTENT_LENGTH);
    if let Some(protocol) = from.get(header::UPGRADE) {
        to.insert(header::UPGRADE, protocol.clone());
    }
    to.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    to
}

/// The protocol a request asks to change to: `Upgrade`, said by `Connection` to be meant.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let said = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let meant =
        said.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| meant)
}

fn pick(from: &HeaderMap, names: &[&str]) -> HeaderMap {
    let dropped = named_by_connection(from);
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        if names.contains(&name.as_str()) && !dropped.contains(name) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

/// A field named by `Connection` is for the next hop only, RFC 9110 section 7.6.1.
fn named_by_connection(from: &HeaderMap) -> Vec<HeaderName> {
    let said = from.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).filter_map(|token| token.trim().parse().ok()).collect()
}

fn strip_token_protocols(headers: &mut HeaderMap) {
    let offered: Vec<HeaderValue> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    for value in offered.iter().filter_map(|value| value.to_str().ok()) {
        let kept: Vec<&str> =
            value.split(',').map(str::trim).filter(|p| !p.starts_with(TOKEN_PROTOCOL)).collect();
        if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
            && !value.is_empty()
        {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

/// A path of the API server becomes one below the gateway; an address elsewhere is dropped.
fn rewritten(location: &HeaderValue, base: &str) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let is_path = location.starts_with('/') && !location.starts_with("//") && !location.contains('\\');
    is_path.then(|| HeaderValue::from_str(&format!("{base}{location}")).ok()).flatten()
}

/// Types that no browser runs.
fn is_data(content_type: Option<&HeaderValue>) -> bool {
    let Some(value) = content_type.and_then(|value| value.to_str().ok()) else { return true };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(
        kind.as_str(),
        "application/json" | "text/plain" | "application/yaml" | "application/octet-stream"
    ) || kind.starts_with("application/vnd.kubernetes.")
        || kind.starts_with("application/com.github.proto-openapi.")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn info(path: &str) -> RequestInfo {
        RequestInfo::parse(&Method::GET, path).unwrap()
    }

    #[test]
    fn credentials_and_hop_fields_stay_at_the_gateway() {
        let from = map(&[
            ("accept", "application/json"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-remote-user", "admin"),
            ("x-forwarded-for", "192.0.2.1"),
            ("connection", "keep-alive, traceparent"),
            ("traceparent", "00-1"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("user-agent", "kubectl"),
        ]);
        assert_eq!(names(&towards_cluster(&from, None)), ["accept", "user-agent"]);
    }

    #[test]
    fn a_token_in_a_websocket_protocol_stays_at_the_gateway() {
        let token = format!("{TOKEN_PROTOCOL}c2VjcmV0");
        let from = map(&[
            ("sec-websocket-protocol", &format!("v5.channel.k8s.io, {token}")),
            ("sec-websocket-protocol", &token),
        ]);
        let to = towards_cluster(&from, None);
        assert_eq!(to.get_all("sec-websocket-protocol").iter().collect::<Vec<_>>(), ["v5.channel.k8s.io"]);
    }

    #[test]
    fn an_upgrade_passes_only_when_connection_says_so() {
        let meant = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(wanted_upgrade(&meant).unwrap(), "SPDY/3.1");
        assert!(wanted_upgrade(&map(&[("upgrade", "SPDY/3.1")])).is_none());
        let to = towards_cluster(&meant, wanted_upgrade(&meant));
        assert_eq!(
            (to["upgrade"].as_bytes(), to["connection"].as_bytes()),
            (&b"SPDY/3.1"[..], &b"Upgrade"[..])
        );
        assert!(towards_cluster(&meant, None).is_empty());
    }

    #[test]
    fn impersonation_is_refused_with_its_reason() {
        assert!(refuse_impersonation(&map(&[("accept", "*/*")])).is_ok());
        for name in ["impersonate-user", "Impersonate-Group", "impersonate-extra-scopes", "impersonate-uid"] {
            let refusal = refuse_impersonation(&map(&[(name, "system:masters")])).unwrap_err();
            assert_eq!((refusal.reason, refusal.cause), (Reason::Forbidden, "impersonation"));
        }
    }

    #[test]
    fn a_cluster_sets_nothing_on_the_gateways_name() {
        let from = map(&[
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("alt-svc", "h3"),
            ("nel", "{}"),
            ("audit-id", "1"),
        ]);
        assert_eq!(
            names(&towards_caller(&from, "/clusters/c", &info("/api/v1/pods"))),
            ["audit-id", "content-type"]
        );
    }

    #[test]
    fn pages_are_put_in_a_sandbox() {
        let html = map(&[("content-type", "text/html; charset=utf-8")]);
        assert!(towards_caller(&html, "/clusters/c", &info("/")).contains_key("content-security-policy"));
        let none = map(&[]);
        let proxied = info("/api/v1/nodes/n/proxy/x");
        assert!(towards_caller(&none, "/clusters/c", &proxied).contains_key("content-security-policy"));
        assert!(!towards_caller(&none, "/clusters/c", &info("/api")).contains_key("content-security-policy"));
    }

    #[test]
    fn a_location_stays_below_the_cluster() {
        let base = "/clusters/c";
        let rewrite = |to: &str| {
            let answer = towards_caller(&map(&[("location", to)]), base, &info("/api"));
            answer.get("location").map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(rewrite("/api/v1").as_deref(), Some("/clusters/c/api/v1"));
        assert_eq!(rewrite("https://example.org/"), None);
        assert_eq!(rewrite("//example.org/"), None);
        assert_eq!(rewrite("/\\example.org"), None);
    }
}
