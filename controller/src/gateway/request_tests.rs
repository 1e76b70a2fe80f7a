//! What the API server makes of a path, case by case, and what must hold for any path.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn parse(method: &str, path: &str) -> Result<RequestInfo, Malformed> {
    RequestInfo::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path)
}

/// `verb group version namespace resource name subresource`, with `-` for nothing.
#[rstest]
#[case("GET", "/api/v1/namespaces", "list - v1 - namespaces - -")]
#[case("GET", "/api/v1/namespaces/other", "get - v1 other namespaces other -")]
#[case("GET", "/api/v1/namespaces/other/pods", "list - v1 other pods - -")]
#[case("GET", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods foo -")]
#[case("HEAD", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods foo -")]
#[case("GET", "/api/v1/pods", "list - v1 - pods - -")]
#[case("HEAD", "/api/v1/pods", "list - v1 - pods - -")]
#[case("POST", "/api/v1/namespaces/other/pods", "create - v1 other pods - -")]
#[case("PUT", "/api/v1/namespaces/other/pods/foo", "update - v1 other pods foo -")]
#[case("PATCH", "/api/v1/namespaces/other/pods/foo", "patch - v1 other pods foo -")]
#[case("DELETE", "/api/v1/namespaces/other/pods/foo", "delete - v1 other pods foo -")]
#[case("DELETE", "/api/v1/namespaces/other/pods", "deletecollection - v1 other pods - -")]
#[case("DELETE", "/api/v1/namespaces/other/pods/", "deletecollection - v1 other pods - -")]
#[case("OPTIONS", "/api/v1/namespaces/other/pods/foo", "other - v1 other pods foo -")]
#[case("GET", "/api/v1/namespaces/other/pods/foo/log?follow=true", "get - v1 other pods foo log")]
#[case("POST", "/api/v1/namespaces/other/pods/foo/exec?command=sh", "create - v1 other pods foo exec")]
#[case("GET", "/api/v1/namespaces/other/status", "get - v1 other namespaces other status")]
#[case("PUT", "/api/v1/namespaces/other/finalize", "update - v1 other namespaces other finalize")]
#[case("GET", "/api/v1/namespaces/other/status/more", "get - v1 other namespaces other status")]
#[case("GET", "/api/v1/watch/pods", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/watch/namespaces/other/pods", "watch - v1 other pods - -")]
#[case("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch - v1 other pods foo -")]
#[case("POST", "/api/v1/watch/pods", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/proxy/namespaces/other/pods/foo/x/y", "proxy - v1 other pods foo -")]
#[case("DELETE", "/api/v1/proxy/nodes/n", "proxy - v1 - nodes n -")]
#[case("GET", "/apis/apps/v1/deployments", "list apps v1 - deployments - -")]
#[case("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale", "get apps v1 a deployments d scale")]
#[case("GET", "/apis/x.io/v1/namespaces", "list x.io v1 - namespaces - -")]
#[case("GET", "/apis/x.io/v1/namespaces/a", "get x.io v1 a namespaces a -")]
#[case("GET", "/api/v1/pods?watch=true", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch=1&watch=false", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch=FALSE", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch=0", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch=no", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/pods?%77atch=true", "watch - v1 - pods - -")]
#[case("GET", "/api/v1/pods?Watch=true", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods?watch=tru%zz", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods?a;watch=true", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods/p?watch=true", "get - v1 - pods p -")]
#[case("POST", "/api/v1/pods?watch=true", "create - v1 - pods - -")]
#[case("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", "list - v1 - pods foo -")]
#[case("GET", "/api/v1/pods?watch=1&fieldSelector=a%3Db%2Cmetadata.name%3D%3Dfoo", "watch - v1 - pods foo -")]
#[case("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dfoo", "list - v1 - pods - -")]
#[case("GET", "/api/v1/pods?fieldSelector=metadata.name%3D..%2Ffoo", "list - v1 - pods - -")]
#[case("DELETE", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", "deletecollection - v1 - pods - -")]
#[case("GET", "/api/v1/nodes/n/proxy/a//b/c%2Fd/", "get - v1 - nodes n proxy")]
#[case(
    "GET",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
    "get rbac.authorization.k8s.io v1 - clusterroles system:node -"
)]
fn resources(#[case] method: &str, #[case] path: &str, #[case] expected: &str) {
    let info = parse(method, path).unwrap();
    let r = info.resource.unwrap();
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let fields = [&r.group, &r.version, &r.namespace, &r.resource, &r.name, &r.subresource].map(|t| dash(t));
    assert_eq!(format!("{} {}", info.verb.as_str(), fields.join(" ")), expected);
}

#[rstest]
#[case("GET", "/", Verb::Get)]
#[case("GET", "/version", Verb::Get)]
#[case("GET", "/api", Verb::Get)]
#[case("GET", "/api/v1", Verb::Get)]
#[case("GET", "/api/v1/", Verb::Get)]
#[case("GET", "/apis/apps/v1", Verb::Get)]
#[case("GET", "/apis/apps", Verb::Get)]
#[case("GET", "/openapi/v3/apis/apps/v1?hash=1", Verb::Get)]
#[case("POST", "/healthz", Verb::Create)]
#[case("GET", "/readyz/etcd/more", Verb::Get)]
fn not_resources(#[case] method: &str, #[case] path: &str, #[case] verb: Verb) {
    assert_eq!(parse(method, path).unwrap(), RequestInfo { verb, resource: None });
}

#[rstest]
#[case("api/v1", Malformed::NotAbsolute)]
#[case("", Malformed::NotAbsolute)]
#[case("*", Malformed::NotAbsolute)]
#[case("//api/v1/pods", Malformed::EmptySegment)]
#[case("/api//v1/pods", Malformed::EmptySegment)]
#[case("/api/v1/pods//", Malformed::EmptySegment)]
#[case("/api/v1/namespaces/../secrets", Malformed::DotSegment)]
#[case("/api/v1/namespaces/%2e%2E/secrets", Malformed::DotSegment)]
#[case("/api/v1/./pods", Malformed::DotSegment)]
#[case("/api/v1/nodes/n/proxy/../../secrets", Malformed::DotSegment)]
#[case("/api/v1/nodes/n/proxy/x%2f..%2f..", Malformed::DotSegment)]
#[case("/api/v1/namespaces/a%2Fb/pods", Malformed::Slash)]
#[case("/api/v1/namespaces/a%5Cb/pods", Malformed::Slash)]
#[case("/api/v1/namespaces/a%2/pods", Malformed::BadEscape)]
#[case("/api/v1/namespaces/a%+1/pods", Malformed::BadEscape)]
#[case("/api/v1/namespaces/a%00/pods", Malformed::NotText)]
#[case("/api/v1/namespaces/a%ff/pods", Malformed::NotText)]
#[case("/api/v1/watch", Malformed::NoResource)]
#[case("/apis/a/v1/proxy", Malformed::NoResource)]
fn refused(#[case] path: &str, #[case] why: Malformed) {
    assert_eq!(parse("GET", path), Err(why));
}

#[test]
fn a_path_beyond_the_limit_is_refused() {
    let path = format!("/{}", "a".repeat(MAX_PATH));
    assert_eq!(parse("GET", &path), Err(Malformed::TooLong));
}

#[rstest]
#[case("/clusters/eu/api/v1/pods?watch=1", Some(("eu", "/api/v1/pods?watch=1")))]
#[case("/clusters/eu", Some(("eu", "/")))]
#[case("/clusters/eu?x=/y", Some(("eu", "/?x=/y")))]
#[case("/clusters/eu//api", Some(("eu", "//api")))]
#[case("/clusters//api", None)]
#[case("/clusters", None)]
#[case("/api/v1/pods", None)]
fn clusters(#[case] path: &str, #[case] expected: Option<(&str, &str)>) {
    let split = split_cluster(path);
    assert_eq!(split.as_ref().map(|(cluster, rest)| (*cluster, rest.as_ref())), expected);
}

/// A second, independent reading of a path by the API server's own steps: decode all of it
/// first, trim slashes, then split.
fn as_the_api_server(path: &str) -> Option<Vec<String>> {
    let decoded = decode(path.split('?').next()?, false)?.into_owned();
    let decoded = String::from_utf8(decoded).ok()?;
    let trimmed = decoded.trim_matches('/');
    Some(if trimmed.is_empty() { vec![] } else { trimmed.split('/').map(str::to_owned).collect() })
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "api", "apis", "v1", "apps", "namespaces", "pods", "watch", "proxy", "status", "finalize", "exec",
        ]).prop_map(str::to_owned),
        2 => "[a-z0-9.:-]{1,8}",
        1 => prop::sample::select(vec!["", ".", "..", "%2e%2e", "%2F", "a%2Fb", "%5c", "%", "%7e"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    /// Any text ends in an answer, never in a panic.
    #[test]
    fn any_text_is_answered(path in "\\PC*") {
        let _ = parse("GET", &path);
        let _ = split_cluster(&path);
    }

    /// Whatever is accepted, the API server finds the same segments in it where they name
    /// a resource, so that path authorised is path carried out.
    #[test]
    fn accepted_means_read_alike(pieces in prop::collection::vec(piece(), 0..9)) {
        let path = format!("/{}", pieces.join("/"));
        let Ok(info) = parse("GET", &path) else { return Ok(()) };
        let theirs = as_the_api_server(&path).expect("accepted paths decode");
        prop_assert!(theirs.iter().all(|part| part != "." && part != ".."), "{path} hides a dot segment");
        let Some(resource) = info.resource else {
            prop_assert!(theirs.iter().all(|part| !part.is_empty()));
            return Ok(());
        };
        for field in [&resource.namespace, &resource.resource, &resource.name, &resource.subresource] {
            prop_assert!(field.is_empty() || theirs.contains(field), "{field} of {path} is unknown to {theirs:?}");
        }
        let whole = RequestInfo::parse(&Method::GET, &format!("/{}", theirs.join("/")));
        if resource.subresource != "proxy" {
            prop_assert_eq!(whole.unwrap().resource.unwrap(), resource);
        }
    }

    /// The parts a path was built from come back.
    #[test]
    fn built_paths_come_back(namespace in "[a-z][a-z0-9-]{0,9}", name in "[a-z][a-z0-9-]{0,9}",
                             group in "[a-z]{1,5}\\.io", resource in "[a-z]{5,9}x") {
        let path = format!("/apis/{group}/v1/namespaces/{namespace}/{resource}/{name}");
        let info = parse("GET", &path).unwrap();
        let expected = Resource { group, version: "v1".into(), resource, subresource: String::new(), namespace, name };
        prop_assert_eq!(info, RequestInfo { verb: Verb::Get, resource: Some(expected) });
    }
}
