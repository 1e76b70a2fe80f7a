//! The one page of the console, and the policy under which a browser runs it.

use axum::body::Body;
use http::{HeaderValue, Response, header};
use uuid::Uuid;

use super::File;

/// Where the build put it.
pub(super) const PATH: &str = "/index.html";

/// What stands in the page where the nonce goes: vite writes it there.
const PLACE: &str = "__CSP_NONCE__";

/// The page, with a nonce of its own.
pub(super) fn answer(files: &[File]) -> Response<Body> {
    let page = files.iter().find(|file| file.path == PATH).map_or(&b""[..], |file| file.plain);
    // 122 bits of the system's randomness.
    let nonce = Uuid::new_v4().simple().to_string();
    let mut response = Response::new(Body::from(String::from_utf8_lossy(page).replace(PLACE, &nonce)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(policy) = HeaderValue::from_str(&policy(&nonce)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Scripts and style sheets of ours alone, and only those that the page itself names; no other
/// address is spoken to, and no other page may frame this one.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic'; style-src 'self' 'nonce-{nonce}'; \
         connect-src 'self'; img-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_nonce_of_its_own() {
        let page = [File { path: PATH, plain: b"<script nonce=__CSP_NONCE__>", brotli: None, gzip: None }];
        let policy = || answer(&page).headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let (one, other) = (policy(), policy());
        assert_ne!(one, other);
        assert!(!one.contains("unsafe") && !one.contains(PLACE), "{one}");
    }

    #[tokio::test]
    async fn the_page_names_the_nonce_of_its_policy() {
        let page = [File { path: PATH, plain: b"<script nonce=__CSP_NONCE__>", brotli: None, gzip: None }];
        let response = answer(&page);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        let nonce = std::str::from_utf8(&body).unwrap().trim_start_matches("<script nonce=");
        let nonce = nonce.trim_end_matches('>');
        assert!(policy.contains(&format!("script-src 'nonce-{nonce}' ")), "{policy} {nonce}");
    }
}
