//! What a Kubernetes request is about: verb, resource, namespace and name, read from method and path.
//!
//! The rules are those of the API server's own `RequestInfoFactory`
//! (k8s.io/apiserver/pkg/endpoints/request/requestinfo.go), with one difference:
//! what it would guess at, this refuses to. A request that cannot be read
//! beyond doubt is [`Request::unread`], which every rule takes for a write to
//! all namespaces.
use http::{Method, Uri};

/// Paths without a resource that only describe the API itself.
const DISCOVERY: [&str; 8] =
    ["api", "apis", "version", "openapi", "healthz", "livez", "readyz", ".well-known"];

/// Subresources that hand out a channel into something that runs, so that even
/// a `GET` of them can change things.
const CHANNELS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

/// Questions that are asked with a `POST`: nothing is stored.
const QUESTIONS: [(&str, &str); 5] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// Resources of Kubernetes itself that belong to no namespace. A collection
/// that is not listed here and has no namespace in its path counts as one that
/// spans all namespaces.
const CLUSTER_SCOPED: [(&str, &str); 27] = [
    ("", "nodes"),
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("", "componentstatuses"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("networking.k8s.io", "ingressclasses"),
    ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
];

/// Verbs that read, as Kubernetes names them.
const READS: [&str; 3] = ["get", "list", "watch"];

/// Where a request reaches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One namespace.
    Namespace(String),
    /// Something that belongs to no namespace.
    Cluster,
    /// Every namespace at once, or nobody can say.
    All,
}

/// The thing that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A resource of the API.
    Resource {
        /// API group, empty for the core group.
        group: String,
        /// Plural name, for example `pods`.
        resource: String,
        /// For example `exec`; empty when there is none.
        subresource: String,
        /// Name of the object; empty for a collection.
        name: String,
    },
    /// A path that only describes the API: discovery, version, health.
    Discovery,
    /// Any other path, or one that cannot be read.
    Other,
}

/// A request as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Kubernetes verb in lower case; empty when it is not known.
    pub verb: String,
    /// What it is about.
    pub subject: Subject,
    /// Where it reaches to.
    pub scope: Scope,
}

impl Request {
    /// A request that could not be read: a write to all namespaces.
    pub fn unread() -> Request {
        Request { verb: String::new(), subject: Subject::Other, scope: Scope::All }
    }

    /// Reads method and path. Never fails: what is in doubt is [`Request::unread`].
    pub fn read(method: &Method, uri: &Uri) -> Request {
        read(method, uri).unwrap_or_else(Request::unread)
    }

    /// Whether the request may change anything.
    pub fn writes(&self) -> bool {
        match &self.subject {
            Subject::Other => true,
            Subject::Discovery => self.verb != "get",
            Subject::Resource { group, resource, subresource, .. } => {
                if CHANNELS.contains(&subresource.as_str()) {
                    return true;
                }
                let asks = self.verb == "create"
                    && subresource.is_empty()
                    && QUESTIONS.contains(&(group.as_str(), resource.as_str()));
                !asks && !READS.contains(&self.verb.as_str())
            }
        }
    }

    /// One phrase for a message: `list pods in namespace shop`.
    pub fn phrase(&self) -> String {
        let verb = if self.verb.is_empty() { "request" } else { &self.verb };
        let subject = match &self.subject {
            Subject::Discovery => "the API's description".to_owned(),
            Subject::Other => "a path that is no Kubernetes resource".to_owned(),
            Subject::Resource { group, resource, subresource, .. } => {
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                let sub = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
                format!("{resource}{group}{sub}")
            }
        };
        match (&self.scope, &self.subject) {
            (Scope::Namespace(name), _) => format!("{verb} {subject} in namespace {name}"),
            (Scope::All, Subject::Resource { .. }) => format!("{verb} {subject} in all namespaces"),
            _ => format!("{verb} {subject}"),
        }
    }
}

/// `None` when anything about the request is in doubt.
fn read(method: &Method, uri: &Uri) -> Option<Request> {
    let segments = segments(uri.path())?;
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
        other => return Some(describes(method, other)),
    };
    resource_request(method, uri, group, rest)
}

fn describes(method: &Method, parts: &[&str]) -> Request {
    let known = parts.first().is_some_and(|first| DISCOVERY.contains(first));
    let verb = match *method {
        Method::GET | Method::HEAD => "get".to_owned(),
        _ => method.as_str().to_ascii_lowercase(),
    };
    let (subject, scope) =
        if known { (Subject::Discovery, Scope::Cluster) } else { (Subject::Other, Scope::All) };
    Request { verb, subject, scope }
}

fn resource_request(method: &Method, uri: &Uri, group: &str, parts: &[&str]) -> Option<Request> {
    let (watch, parts) = match parts {
        // The old form of a watch; its twin `proxy` is gone from Kubernetes.
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        ["proxy", ..] => return None,
        other => (watches(uri.query()), other),
    };
    let (namespace, parts) = match parts {
        ["namespaces", name] => (Some(*name), ["namespaces", *name].to_vec()),
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            (Some(*name), ["namespaces", *name, *sub].to_vec())
        }
        ["namespaces", _, "status" | "finalize", ..] => return None,
        ["namespaces", name, rest @ ..] => (Some(*name), rest.to_vec()),
        other => (None, other.to_vec()),
    };
    let resource = (*parts.first()?).to_owned();
    let name = parts.get(1).copied().unwrap_or_default().to_owned();
    let subresource = parts.get(2).copied().unwrap_or_default().to_owned();
    // Beyond a subresource only a proxy has a path of its own.
    if parts.len() > 3 && subresource != "proxy" {
        return None;
    }
    let verb = verb(method, &name, watch)?;
    let scope = scope(namespace, group, &resource, &name, verb);
    let subject = Subject::Resource { group: group.to_owned(), resource, subresource, name };
    Some(Request { verb: verb.to_owned(), subject, scope })
}

fn verb(method: &Method, name: &str, watch: bool) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD if name.is_empty() && watch => "watch",
        Method::GET | Method::HEAD if name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => return None,
    })
}

fn scope(namespace: Option<&str>, group: &str, resource: &str, name: &str, verb: &str) -> Scope {
    if let Some(namespace) = namespace {
        return Scope::Namespace(namespace.to_owned());
    }
    // An object that has a name and no namespace in its path is in none, and
    // nothing can be created across namespaces.
    let single = !name.is_empty() || verb == "create";
    if single || CLUSTER_SCOPED.contains(&(group, resource)) { Scope::Cluster } else { Scope::All }
}

/// Go's reading of a boolean in a query: anything but `false` and `0` is true.
fn watches(query: Option<&str>) -> bool {
    let first = query.unwrap_or_default().split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key).as_deref() == Some("watch")).then_some(value)
    });
    first.is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
}

/// The decoded parts of a path; `None` when they could be read in two ways.
fn segments(path: &str) -> Option<Vec<String>> {
    let trimmed = path.strip_prefix('/')?;
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    if trimmed.is_empty() {
        return Some(Vec::new());
    }
    let mut proxied = false;
    let mut parts = Vec::new();
    for raw in trimmed.split('/') {
        let part = decode(raw)?;
        let doubtful = part == "." || part == ".." || part.contains(['/', '\\']);
        if doubtful || (part.is_empty() && !proxied) {
            return None;
        }
        proxied = proxied || part == "proxy";
        parts.push(part);
    }
    Some(parts)
}

/// Percent decoding; `None` for a bad escape, a control character or no UTF-8.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn read_str(method: &str, uri: &str) -> Request {
        Request::read(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[rstest]
    #[case("GET", "/api/v1/namespaces/shop/pods", "list pods in namespace shop", false)]
    #[case("GET", "/api/v1/namespaces/shop/pods?watch=1", "watch pods in namespace shop", false)]
    #[case("GET", "/api/v1/pods?watch=false", "list pods in all namespaces", false)]
    #[case("GET", "/api/v1/watch/namespaces/shop/pods", "watch pods in namespace shop", false)]
    #[case("HEAD", "/api/v1/namespaces/shop/pods/a", "get pods in namespace shop", false)]
    #[case("GET", "/api/v1/namespaces/shop", "get namespaces in namespace shop", false)]
    #[case("PUT", "/api/v1/namespaces/shop/finalize", "update namespaces/finalize in namespace shop", true)]
    #[case("GET", "/api/v1/nodes", "list nodes", false)]
    #[case("GET", "/api/v1/nodes/n1/proxy/metrics", "get nodes/proxy", true)]
    #[case(
        "GET",
        "/api/v1/namespaces/a/services/x:80/proxy//deep/",
        "get services/proxy in namespace a",
        true
    )]
    #[case(
        "GET",
        "/apis/apps/v1/namespaces/a/deployments/d/scale",
        "get deployments.apps/scale in namespace a",
        false
    )]
    #[case("DELETE", "/api/v1/namespaces/a/pods", "deletecollection pods in namespace a", true)]
    #[case("POST", "/api/v1/namespaces/a/pods/p/exec?command=ls", "create pods/exec in namespace a", true)]
    #[case("GET", "/api/v1/namespaces/a/pods/p/exec", "get pods/exec in namespace a", true)]
    #[case("GET", "/api/v1/namespaces/a/pods/p/log?follow=true", "get pods/log in namespace a", false)]
    #[case("GET", "/api/v1/namespaces/kube%2Dsystem/pods", "list pods in namespace kube-system", false)]
    #[case("GET", "/version", "get the API's description", false)]
    #[case("GET", "/apis/apps/v1", "get the API's description", false)]
    #[case("POST", "/version", "post the API's description", true)]
    #[case("GET", "/metrics", "get a path that is no Kubernetes resource", true)]
    #[case(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "create selfsubjectaccessreviews.authorization.k8s.io",
        false
    )]
    #[case("GET", "/apis/example.org/v1/things", "list things.example.org in all namespaces", false)]
    fn requests_are_read_as_kubernetes_does(
        #[case] method: &str,
        #[case] uri: &str,
        #[case] phrase: &str,
        #[case] writes: bool,
    ) {
        let request = read_str(method, uri);
        assert_eq!(request.phrase(), phrase);
        assert_eq!(request.writes(), writes);
    }

    #[rstest]
    #[case("GET", "/api/v1/namespaces/a%2Fpods")]
    #[case("GET", "/api/v1/namespaces/../pods")]
    #[case("GET", "/api/v1/namespaces/%2e%2e/pods")]
    #[case("GET", "/api/v1//namespaces/a/pods")]
    #[case("GET", "/api/v1/namespaces/a/pods/%zz")]
    #[case("GET", "/api/v1/namespaces/a/pods/%00")]
    #[case("GET", "/api/v1/namespaces/a/pods/p/log/more")]
    #[case("GET", "/api/v1/proxy/namespaces/a/services/s")]
    #[case("OPTIONS", "/api/v1/namespaces/a/pods")]
    fn what_is_in_doubt_is_a_write_to_all_namespaces(#[case] method: &str, #[case] uri: &str) {
        let request = read_str(method, uri);
        assert_eq!(request, Request::unread());
        assert!(request.writes());
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_panic(path in "/[ -~]{0,80}", method in "GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|TRACE") {
            if let Ok(uri) = path.parse::<Uri>() {
                let request = Request::read(&method.parse().unwrap(), &uri);
                // Nothing but a read or a question is ever held harmless.
                if !request.writes() && method != "GET" && method != "HEAD" {
                    let question = matches!(&request.subject, Subject::Resource { group, resource, .. }
                        if QUESTIONS.contains(&(group.as_str(), resource.as_str())));
                    prop_assert!(question, "{:?}", request);
                }
            }
        }

        #[test]
        fn an_encoded_path_is_the_plain_one(namespace in "[a-z0-9-]{1,20}", mask in any::<u32>()) {
            let encoded: String = namespace.bytes().enumerate().map(|(index, byte)| {
                if mask & (1 << (index % 32)) == 0 { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            }).collect();
            let plain = read_str("GET", &format!("/api/v1/namespaces/{namespace}/secrets"));
            let other = read_str("GET", &format!("/api/v1/namespaces/{encoded}/secrets"));
            prop_assert_eq!(plain, other);
        }
    }
}
