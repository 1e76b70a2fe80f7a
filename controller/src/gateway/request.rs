//! Reads a request's method, path and query as Kubernetes' API server reads them.
//!
//! The rules are those of `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`: what the
//! gateway authorises must be what the API server will carry out. Where the API server is
//! lenient about a path's spelling (empty or dot segments, an encoded slash) the gateway
//! refuses, so that no two programs on the way can read one path in two ways. The path that
//! is forwarded is, byte for byte, the path that was parsed.

use std::borrow::Cow;

use http::Method;

/// What a request asks of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) verb: Verb,
    /// `None` for paths outside `/api` and `/apis`, and for discovery below them.
    pub(crate) resource: Option<Resource>,
}

/// The part of the API a resource request touches. Empty text where a part is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Kubernetes' verbs. `Other` stands for a method that Kubernetes gives no verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Proxy,
    Other,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Proxy => "proxy",
            Verb::Other => "other",
        }
    }

    fn of_method(method: &Method) -> Verb {
        match *method {
            Method::POST => Verb::Create,
            Method::GET | Method::HEAD => Verb::Get,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        }
    }
}

/// Why a path is refused before anything is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has an empty segment (two slashes in a row)")]
    EmptySegment,
    #[error("the path has a segment '.' or '..'")]
    DotSegment,
    #[error("the path has an encoded slash or a backslash")]
    Slash,
    #[error("the path has a '%' that two hexadecimal digits do not follow")]
    BadEscape,
    #[error("the path is not UTF-8, or has a control character")]
    NotText,
    #[error("the path names no resource after its special verb")]
    NoResource,
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
}

/// Longest path and query that is parsed, bytes: Go's and hyper's own limits are near.
pub(crate) const MAX_PATH: usize = 64 * 1024;

/// Splits `/clusters/<cluster>/<rest>` into the cluster's id or name and the path and query
/// to forward, `None` for any other path. The rest keeps its spelling.
pub(crate) fn split_cluster(path_and_query: &str) -> Option<(&str, Cow<'_, str>)> {
    let rest = path_and_query.strip_prefix("/clusters/")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (cluster, tail) = rest.split_at(end);
    if cluster.is_empty() {
        return None;
    }
    if tail.starts_with('/') {
        Some((cluster, tail.into()))
    } else {
        Some((cluster, format!("/{tail}").into()))
    }
}

impl RequestInfo {
    /// Parses what goes on the wire: `path_and_query` undecoded.
    pub(crate) fn parse(method: &Method, path_and_query: &str) -> Result<RequestInfo, Malformed> {
        if path_and_query.len() > MAX_PATH {
            return Err(Malformed::TooLong);
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let segments = segments(path)?;
        let parts: Vec<&str> = segments.iter().map(|segment| segment.text.as_ref()).collect();
        let Some((verb, resource, tail)) = resource_of(method, &parts)? else {
            check(&segments, segments.len())?;
            return Ok(RequestInfo { verb: Verb::of_method(method), resource: None });
        };
        check(&segments, segments.len() - tail)?;
        Ok(with_query(verb, resource, query))
    }

    /// Whether a success of this request may go on without end and without silence meaning
    /// anything: watches, logs, and bytes of upgraded connections.
    pub(crate) fn streams(&self) -> bool {
        self.verb == Verb::Watch
            || self.resource.as_ref().is_some_and(|r| {
                matches!(r.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
            })
    }
}

/// The decoded text of a segment, and what its spelling may hide.
struct Segment<'a> {
    text: Cow<'a, str>,
    has_slash: bool,
}

/// Decodes each segment. Dot segments and broken escapes are refused wherever they stand.
fn segments(path: &str) -> Result<Vec<Segment<'_>>, Malformed> {
    let path = path.strip_prefix('/').ok_or(Malformed::NotAbsolute)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Result<Segment<'_>, Malformed> {
    let text = decode(raw, false).ok_or(Malformed::BadEscape)?;
    let text = match text {
        Cow::Borrowed(bytes) => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Malformed::NotText)?
        }
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Malformed::NotText)?,
    };
    if text == "." || text == ".." {
        return Err(Malformed::DotSegment);
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(Malformed::NotText);
    }
    let has_slash = text.contains(['/', '\\']);
    // An encoded slash can hide a dot segment from this check and not from the next reader.
    if has_slash && text.split(['/', '\\']).any(|piece| piece == "." || piece == "..") {
        return Err(Malformed::DotSegment);
    }
    Ok(Segment { text, has_slash })
}

/// Refuses empty segments and hidden slashes in the first `count` segments. What follows a
/// `proxy` subresource belongs to the proxied program and is passed on as it is.
fn check(segments: &[Segment<'_>], count: usize) -> Result<(), Malformed> {
    for segment in segments.iter().take(count) {
        if segment.text.is_empty() {
            return Err(Malformed::EmptySegment);
        }
        if segment.has_slash {
            return Err(Malformed::Slash);
        }
    }
    Ok(())
}

/// The verb, the resource, and how many segments at the end are a proxied program's own.
/// `None` when the path is not that of a resource.
fn resource_of(method: &Method, parts: &[&str]) -> Result<Option<(Verb, Resource, usize)>, Malformed> {
    let (group, version, rest) = match parts {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(None),
    };
    let (verb, rest) = match rest {
        ["watch" | "proxy"] => return Err(Malformed::NoResource),
        ["watch", rest @ ..] => (Verb::Watch, rest),
        ["proxy", rest @ ..] => (Verb::Proxy, rest),
        rest => (Verb::of_method(method), rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace] => (*namespace, rest),
        ["namespaces", namespace, "status" | "finalize", ..] => (*namespace, rest),
        ["namespaces", namespace, inner @ ..] => (*namespace, inner),
        rest => ("", rest),
    };
    let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
    let subresource = if verb == Verb::Proxy { String::new() } else { part(2) };
    let tail = if subresource == "proxy" { rest.len().saturating_sub(3) } else { 0 };
    let resource = Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: part(0),
        name: part(1),
        namespace: namespace.to_owned(),
        subresource,
    };
    Ok(Some((verb, resource, tail)))
}

/// A get without a name is a list or, by its `watch` parameter, a watch; a delete without a
/// name deletes a collection.
fn with_query(verb: Verb, mut resource: Resource, query: &str) -> RequestInfo {
    let verb = match verb {
        Verb::Get if resource.name.is_empty() => {
            let verb = if wants_watch(query) { Verb::Watch } else { Verb::List };
            if let Some(name) = selected_name(query) {
                resource.name = name;
            }
            verb
        }
        Verb::Delete if resource.name.is_empty() => Verb::DeleteCollection,
        verb => verb,
    };
    RequestInfo { verb, resource: Some(resource) }
}

/// Kubernetes takes any value of the first `watch` but `false` and `0` for yes, the empty too.
fn wants_watch(query: &str) -> bool {
    parameter(query, "watch").is_some_and(|value| !(value.eq_ignore_ascii_case("false") || value == "0"))
}

/// The name that `fieldSelector=metadata.name=…` pins a list to.
fn selected_name(query: &str) -> Option<String> {
    let selector = parameter(query, "fieldSelector")?;
    let name = selector.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        (key == "metadata.name").then(|| value.strip_prefix('=').unwrap_or(value))
    })?;
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%', '\\']);
    plain.then(|| name.to_owned())
}

/// The first value of a query parameter. Pairs with a broken escape or a semicolon do not
/// count, as in Go's `url.ParseQuery`.
fn parameter(query: &str, key: &str) -> Option<String> {
    query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, true)?;
        let value = decode(value, true)?;
        (name.as_ref() == key.as_bytes()).then(|| String::from_utf8_lossy(&value).into_owned())
    })
}

/// Undoes percent-encoding, and `+` for a space where `form` says so. `None` for an escape
/// that is none.
fn decode(raw: &str, form: bool) -> Option<Cow<'_, [u8]>> {
    let plus = form && raw.contains('+');
    if !plus && !raw.contains('%') {
        return Some(Cow::Borrowed(raw.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.push(hex_pair(digits)?);
                rest = after;
            }
            b'+' if form => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    Some(Cow::Owned(bytes))
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        value.checked_mul(16)?.checked_add(u8::try_from(digit).ok()?)
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
