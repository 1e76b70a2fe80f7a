//! Who asks, and whether they may: the app's answers in kubectl's words.

use std::net::SocketAddr;

use culvert_pki::verify::{Peer, PeerError, verify_peer};
use culvert_proto::tunnel::v1 as proto;
use http::{HeaderMap, header};
use rustls::pki_types::CertificateDer;

use super::status::{Reason, Refusal};
use crate::app::{App, Error, Target};
use crate::domain::{Caller, ClusterRef};

/// Names of the `extra` fields that the cluster's audit shows.
const EXTRA_ORG: &str = "culvert.dev/org";
const EXTRA_REQUEST: &str = "culvert.dev/request-id";

/// What a connection showed of itself, checked once: `None` without a certificate.
pub(crate) fn introduce(app: &App, chain: &[CertificateDer<'static>]) -> Option<Result<Peer, PeerError>> {
    (!chain.is_empty()).then(|| verify_peer(chain, app.roots(), app.domain(), app.now()))
}

/// The holder of the request's bearer token, or else of the connection's certificate.
pub(crate) async fn authenticate(
    app: &App,
    headers: &HeaderMap,
    peer: Option<&Result<Peer, PeerError>>,
    source: SocketAddr,
) -> Result<Caller, Refusal> {
    let authenticated = match (headers.get(header::AUTHORIZATION), peer) {
        (Some(value), _) => {
            let text = value.to_str().ok().and_then(bearer).ok_or_else(|| {
                unauthorised(
                    "authorization_malformed",
                    "the Authorization header is not `Bearer` and an API token",
                )
            })?;
            app.authenticate_bearer(text, source.ip()).await
        }
        (None, Some(Ok(peer))) => app.authenticate_certificate(peer).await,
        (None, Some(Err(error))) => return Err(unauthorised("certificate_invalid", &error.to_string())),
        (None, None) => {
            let message = "there is no client certificate and no bearer token; use a kubeconfig of culvert cluster kubeconfig";
            return Err(unauthorised("no_credential", message));
        }
    };
    authenticated.map_err(|error| refusal(error, "the cluster"))
}

/// Where the caller's requests to `cluster` go.
pub(crate) async fn authorise(app: &App, caller: &Caller, cluster: &str) -> Result<Target, Refusal> {
    let which: ClusterRef = cluster.parse().map_err(|_| no_such(cluster))?;
    app.authorise_gateway(caller, &which).await.map_err(|error| match error {
        Error::NotFound(_) => no_such(cluster),
        error => refusal(error, cluster),
    })
}

/// In whose name the agent carries a request out.
pub(crate) fn caller_of(target: &Target, caller: &Caller, request_id: &str) -> proto::Caller {
    let extra = [(EXTRA_ORG, caller.org().to_string()), (EXTRA_REQUEST, request_id.to_owned())];
    proto::Caller {
        user: target.user.clone(),
        groups: target.groups.clone(),
        extra: extra.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Whether an error says that a right has ended, and not merely that nobody can tell now.
pub(crate) fn is_no(error: &Error) -> bool {
    !matches!(error, Error::Unavailable(_) | Error::Internal { .. } | Error::TooMany { .. })
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorised(cause: &'static str, message: &str) -> Refusal {
    Refusal::new(Reason::Unauthorized, cause, message)
}

fn no_such(cluster: &str) -> Refusal {
    let shown: String = cluster.chars().filter(|c| !c.is_control()).take(64).collect();
    Refusal::new(Reason::NotFound, "cluster_unknown", format!("there is no cluster {shown}"))
}

fn refusal(error: Error, cluster: &str) -> Refusal {
    match error {
        Error::NotFound(what) => {
            Refusal::new(Reason::NotFound, "not_found", format!("there is no such {what}"))
        }
        Error::Unauthenticated { code, reason } => unauthorised(code, &reason),
        Error::Denied { code, reason, next } => {
            Refusal::new(Reason::Forbidden, code, format!("{reason}; {next}"))
        }
        Error::Conflict { code, reason } => Refusal::new(Reason::ServiceUnavailable, code, reason),
        Error::Refused { code, reason, next, .. } | Error::Away { code, reason, next } => {
            Refusal::new(Reason::ServiceUnavailable, code, format!("{reason}; {next}"))
        }
        Error::Invalid(_) => Refusal::new(Reason::BadRequest, "invalid", error.to_string()),
        Error::TooMany { retry_after } => {
            let seconds = u32::try_from(retry_after.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
            Refusal::new(Reason::TooManyRequests, "too_many", error.to_string()).retry_after(seconds)
        }
        Error::Unavailable(source) => {
            tracing::warn!(cause = %source, "a request to the gateway cannot be decided now");
            let message = format!("whether you may use {cluster} cannot be decided at the moment");
            Refusal::new(Reason::ServiceUnavailable, "store_unavailable", message).retry_after(1)
        }
        Error::Internal { what, source } => {
            tracing::error!(what, cause = %source, "a request to the gateway failed");
            Refusal::new(
                Reason::InternalError,
                "internal",
                "the controller failed; its log has the request id",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_found_in_any_spelling_of_its_scheme() {
        assert_eq!(bearer("Bearer cva1.x.y"), Some("cva1.x.y"));
        assert_eq!(bearer("bearer  cva1.x.y "), Some("cva1.x.y"));
        assert_eq!(bearer("Basic x"), None);
        assert_eq!(bearer("cva1.x.y"), None);
    }

    #[test]
    fn a_strange_cluster_name_is_shown_cut() {
        let refusal = no_such(&"\u{1b}[2J".repeat(100));
        assert!(!refusal.message.contains('\u{1b}') && refusal.message.len() < 100, "{}", refusal.message);
    }
}
