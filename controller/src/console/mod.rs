//! The console: web pages that stand in the binary, so that a controller is one file.
//!
//! What `console/` built is taken in by `build.rs`. Names under `/assets/` carry a hash of their
//! content and may be kept for ever; everything else is asked for again. A path that names no
//! file is a place inside the application, which finds its way by itself: it gets the page.
//!
//! Mistakes a newcomer could make:
//! - an answer of this room for a path under `/api`: a program that mistypes a route would get
//!   a page. `is_for_pages` keeps them apart.
//! - loosening the policy of the page for a library: take another library.

mod page;

use std::convert::Infallible;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

/// A file of the console, with what compression made of it.
struct File {
    path: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// Names with a hash in them.
const HASHED: &str = "/assets/";

/// Whether a path belongs to the pages, and not to the API.
pub(crate) fn is_for_pages(path: &str) -> bool {
    path != "/api" && !path.starts_with("/api/")
}

/// Answers a request for a page or a file of one.
pub(crate) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Result<Response<Body>, Infallible> {
    let mut response = found(method, path, headers);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
    headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    Ok(response)
}

fn found(method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "pages are only read\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match FILES.iter().find(|file| file.path == path && path != page::PATH) {
        Some(file) => served(file, headers),
        None if path.starts_with(HASHED) => plain(StatusCode::NOT_FOUND, "there is nothing at this path\n"),
        None => page::answer(FILES),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A file, in the smallest form that the browser takes.
fn served(file: &File, asked: &HeaderMap) -> Response<Body> {
    let (coding, bytes) = match (file.brotli, file.gzip) {
        (Some(bytes), _) if takes(asked, "br") => (Some("br"), bytes),
        (_, Some(bytes)) if takes(asked, "gzip") => (Some("gzip"), bytes),
        _ => (None, file.plain),
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(file.path)));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let kept = if file.path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    response
}

/// Whether a browser said that it takes a coding. A weight of nought is a no.
fn takes(asked: &HeaderMap, coding: &str) -> bool {
    let lines = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case(coding) && weight.parse() != Ok(0.0_f32)
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("html") => "text/html; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Response<Body> {
        answer(&Method::GET, path, &HeaderMap::new()).unwrap()
    }

    #[test]
    fn places_inside_the_application_get_the_page() {
        for path in ["/", "/clusters", "/clusters/x.y/z", "/index.html", "/apis"] {
            assert!(is_for_pages(path), "{path}");
            let response = get(path);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store", "{path}");
            assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
        }
    }

    #[test]
    fn routes_of_the_api_are_never_pages() {
        for path in ["/api", "/api/", "/api/v1/nothing"] {
            assert!(!is_for_pages(path), "{path}");
        }
    }

    #[test]
    fn a_missing_asset_is_not_a_page() {
        assert_eq!(get("/assets/gone-12345678.js").status(), StatusCode::NOT_FOUND);
        let posted = answer(&Method::POST, "/clusters", &HeaderMap::new()).unwrap();
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn files_come_in_the_coding_that_the_browser_takes() {
        let file = File { path: "/assets/a-1.js", plain: b"plain", brotli: Some(b"b"), gzip: Some(b"g") };
        let coded = |accepted: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap());
            let headers = served(&file, &asked).headers().clone();
            assert_eq!(headers[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
            headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(coded("gzip, deflate, br, zstd").as_deref(), Some("br"));
        assert_eq!(coded("br;q=0, GZIP;q=0.5").as_deref(), Some("gzip"));
        assert_eq!(coded("identity"), None);
    }
}
