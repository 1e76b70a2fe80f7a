//! Which headers pass on the way to the API server and back, and in whose name a request goes.
use culvert_proto::tunnel::v1::Caller;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers that belong to one hop, and those that only the agent may set.
const STRIPPED: [HeaderName; 13] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::COOKIE,
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Names by which Kubernetes is told who somebody is.
const IDENTITY_PREFIXES: [&str; 2] = ["impersonate-", "x-remote-"];

/// The caller has a name that cannot be put into a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unwritable;

/// Makes the headers of a request fit to be sent in the caller's name. The
/// agent's own `Authorization` is not set here.
pub(super) fn outgoing(headers: &mut HeaderMap, caller: &Caller, upgrade: bool) -> Result<(), Unwritable> {
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    strip_hop(headers);
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| IDENTITY_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)))
        .cloned()
        .collect();
    for name in foreign {
        headers.remove(name);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    impersonate(headers, caller)
}

/// Takes away what belongs to the hop between API server and agent. With a 101
/// the upgrade's own two stay.
pub(super) fn incoming(headers: &mut HeaderMap, upgraded: bool) {
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| upgraded);
    strip_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&STRIPPED) {
        headers.remove(name);
    }
}

fn impersonate(headers: &mut HeaderMap, caller: &Caller) -> Result<(), Unwritable> {
    headers.insert(HeaderName::from_static("impersonate-user"), value(&caller.user)?);
    for group in &caller.groups {
        headers.append(HeaderName::from_static("impersonate-group"), value(group)?);
    }
    for (key, extra) in &caller.extra {
        let name = format!("impersonate-extra-{}", escape(key));
        headers.append(HeaderName::try_from(name).map_err(|_| Unwritable)?, value(extra)?);
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Unwritable> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Unwritable)
}

/// Kubernetes undoes a percent encoding of what a header name cannot hold
/// (k8s.io/client-go/transport/round_trippers.go, `headerKeyEscape`).
fn escape(key: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caller() -> Caller {
        Caller {
            user: "culvert:anna".to_owned(),
            groups: vec!["culvert:admins".to_owned(), "culvert:readers".to_owned()],
            extra: [("culvert.dev/org".to_owned(), "org_1".to_owned())].into_iter().collect(),
        }
    }

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_request_goes_in_the_callers_name_and_no_other() {
        let mut headers = map(&[
            ("authorization", "Bearer stolen"),
            ("impersonate-user", "system:admin"),
            ("impersonate-group", "system:masters"),
            ("impersonate-extra-scopes", "all"),
            ("impersonate-uid", "0"),
            ("x-remote-user", "system:admin"),
            ("connection", "x-hop, Upgrade"),
            ("x-hop", "1"),
            ("upgrade", "SPDY/3.1"),
            ("host", "elsewhere"),
            ("accept", "application/json"),
        ]);
        outgoing(&mut headers, &caller(), false).unwrap();
        let expected = map(&[
            ("accept", "application/json"),
            ("impersonate-user", "culvert:anna"),
            ("impersonate-group", "culvert:admins"),
            ("impersonate-group", "culvert:readers"),
            ("impersonate-extra-culvert.dev%2forg", "org_1"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn an_upgrade_keeps_its_two_headers() {
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        outgoing(&mut headers, &caller(), true).unwrap();
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(headers["connection"], "Upgrade");
        let mut answer =
            map(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("transfer-encoding", "chunked")]);
        incoming(&mut answer, true);
        assert_eq!(answer, map(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]));
        incoming(&mut answer, false);
        assert!(answer.is_empty());
    }

    #[test]
    fn a_name_that_breaks_the_line_is_refused() {
        let bad = Caller { user: "culvert:a\r\nx: y".to_owned(), ..caller() };
        assert_eq!(outgoing(&mut HeaderMap::new(), &bad, false), Err(Unwritable));
    }

    proptest! {
        #[test]
        fn any_extra_key_can_be_written(key in "\\PC{1,40}") {
            let caller = Caller { extra: [(key, "v".to_owned())].into_iter().collect(), ..caller() };
            prop_assert_eq!(outgoing(&mut HeaderMap::new(), &caller, false), Ok(()));
        }

        #[test]
        fn rule_11_no_identity_of_the_request_survives(name in "(impersonate|Impersonate|IMPERSONATE|x-remote|X-Remote)-[a-zA-Z]{1,10}", connection in "[a-z, -]{0,30}") {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("hers"));
            if let Ok(connection) = HeaderValue::from_str(&connection) {
                headers.insert("connection", connection);
            }
            outgoing(&mut headers, &caller(), true).unwrap();
            prop_assert!(headers.values().all(|value| value != "hers"));
        }
    }
}
