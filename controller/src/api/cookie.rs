//! The browser's session: a cookie that only our own pages can use.

use std::str::FromStr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, header};

use crate::app::Secret;
use crate::domain::Time;

const NAME: &str = "__Host-culvert";

/// The session token in the request's cookies.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .map(|(_, value)| value.to_owned())
}

/// The header that gives the browser its cookie.
pub(super) fn set(token: &Secret, now: Time, expires_at: Time) -> Option<HeaderValue> {
    let seconds = (expires_at - now).whole_seconds().max(0);
    let line =
        format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}", token.expose());
    let mut value = HeaderValue::from_str(&line).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The header that takes the cookie away.
pub(super) fn clear() -> HeaderValue {
    HeaderValue::from_static("__Host-culvert=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// Whether a request that a browser made came from a page of this very address.
/// Required where the browser's cookie could change something.
pub(super) fn same_origin(parts: &Parts) -> bool {
    parts.headers.contains_key(header::ORIGIN) && origin_is_not_foreign(parts)
}

/// Whether a request names no origin, or this very address.
pub(super) fn origin_is_not_foreign(parts: &Parts) -> bool {
    let mut origins = parts.headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let origin = origin.to_str().ok().and_then(|o| o.strip_prefix("https://"));
            let origin = origin.and_then(|o| Authority::from_str(o).ok());
            origin.zip(own_authority(parts)).is_some_and(|(theirs, ours)| same(&theirs, &ours))
        }
        _ => false,
    }
}

/// The host a request was sent to: HTTP/2 has it in the target, HTTP/1.1 in a header.
fn own_authority(parts: &Parts) -> Option<Authority> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.clone());
    }
    Authority::from_str(parts.headers.get(header::HOST)?.to_str().ok()?).ok()
}

fn same(a: &Authority, b: &Authority) -> bool {
    let port = |x: &Authority| x.port_u16().unwrap_or(443);
    a.host().eq_ignore_ascii_case(b.host()) && port(a) == port(b)
}

/// Whether a method promises to change nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_pages_of_this_address_may_change_things() {
        let own = |origin| same_origin(&parts("/x", &[("host", "a.example:8443"), ("origin", origin)]));
        assert!(own("https://a.example:8443"));
        assert!(own("https://A.example:8443"));
        for foreign in ["https://a.example", "http://a.example:8443", "https://b.example:8443", "null", ""] {
            assert!(!own(foreign), "{foreign}");
        }
        assert!(!same_origin(&parts("/x", &[("host", "a.example")])));
        assert!(origin_is_not_foreign(&parts("/x", &[("host", "a.example")])));
        assert!(same_origin(&parts("https://a.example/x", &[("origin", "https://a.example:443")])));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let found = |line| token(&parts("/", &[("cookie", line)]).headers);
        assert_eq!(found("a=b; __Host-culvert=cvs1.x.y; c=d").as_deref(), Some("cvs1.x.y"));
        assert_eq!(found("__Host-culvert-not=1"), None);
    }
}
