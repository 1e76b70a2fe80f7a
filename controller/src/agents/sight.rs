//! What the controller itself observes of a connection that comes to nothing.

use std::io;
use std::net::SocketAddr;

use culvert_pki::tls::{AcceptFailure, classify_accept_error};
use culvert_pki::token::TokenId;
use culvert_tunnel::Ended;

use super::door::Agents;
use super::silence::Use;
use crate::app::AttemptKey;
use crate::domain::{Cause, Outcome, Stage};

impl Agents {
    /// A handshake at the agents' door failed.
    pub(crate) async fn tls_failed(&self, source: SocketAddr, token: Option<TokenId>, error: &io::Error) {
        let (cause, detail) = handshake_cause(&classify_accept_error(error));
        let token_id = token.map(|id| id.to_string());
        tracing::info!(%source, token_id, %cause, detail, "an agent's TLS handshake failed");
        self.missed(source, token, Outcome::Failed, cause, &detail).await;
    }

    /// There was no place for a connection at the agents' door.
    pub(crate) async fn no_place(&self, source: SocketAddr, token: Option<TokenId>) {
        tracing::warn!(%source, "an agent was turned away: too many connections, or too many new ones at once");
        self.missed(source, token, Outcome::Refused, Cause::Overloaded, "").await;
    }

    async fn missed(
        &self,
        source: SocketAddr,
        token: Option<TokenId>,
        outcome: Outcome,
        cause: Cause,
        detail: &str,
    ) {
        self.metrics.refused.inc();
        if let Some(token) = token
            && let Some(attempt) = self.app.attempt_reached(&token, source.ip()).await
        {
            self.app.stop_attempt(attempt, Stage::Tls, outcome, cause, detail).await;
        }
    }

    /// A connection that named a token, and passed TLS, has ended.
    pub(crate) async fn left(
        &self,
        source: SocketAddr,
        attempt: Option<AttemptKey>,
        used: Use,
        ended: &Ended,
    ) {
        let Some((cause, detail)) = parting_cause(used, ended) else { return };
        self.metrics.silent.inc();
        tracing::info!(%source, %cause, detail, %ended, "a connection at the agents' door came to nothing");
        if let Some(attempt) = attempt {
            self.app.stop_attempt(attempt, Stage::Tls, Outcome::Failed, cause, &detail).await;
        }
    }
}

/// What a failed handshake says of the other end.
fn handshake_cause(failure: &AcceptFailure) -> (Cause, String) {
    let cause = match failure {
        AcceptFailure::ClientPinMismatch => Cause::WrongPin,
        // An agent says what it means by other alerts; whoever sends this one is no agent.
        AcceptFailure::ClientRejectedOurCertificate { .. } => Cause::Intercepted,
        AcceptFailure::ClientClock => Cause::ClockSkew,
        AcceptFailure::ClientCertificateExpired => Cause::CertificateExpired,
        AcceptFailure::UntrustedClientCertificate { .. } => Cause::CertificateUnknown,
        AcceptFailure::Timeout => Cause::TlsTimeout,
        AcceptFailure::NotTls => Cause::NoTls13,
        AcceptFailure::Closed | AcceptFailure::Other(_) => Cause::TlsFailed,
    };
    (cause, failure.to_string())
}

/// What a connection that passed TLS and was never used as an agent uses one says.
fn parting_cause(used: Use, ended: &Ended) -> Option<(Cause, String)> {
    match (used, ended) {
        (Use::Grpc, _) | (_, Ended::Stopped) => None,
        (Use::Http, _) => {
            Some((Cause::Protocol, "an HTTP request came where an agent speaks gRPC".to_owned()))
        }
        (Use::Nothing, _) => {
            let detail = "the connection was closed after TLS without a request; a TLS-inspecting proxy may sit in between";
            Some((Cause::Intercepted, detail.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_after_tls_is_told_apart_from_use() {
        assert_eq!(
            parting_cause(Use::Nothing, &Ended::Closed).map(|(cause, _)| cause),
            Some(Cause::Intercepted)
        );
        assert_eq!(parting_cause(Use::Http, &Ended::Closed).map(|(cause, _)| cause), Some(Cause::Protocol));
        assert_eq!(parting_cause(Use::Grpc, &Ended::Closed), None);
        assert_eq!(parting_cause(Use::Nothing, &Ended::Stopped), None);
    }

    #[test]
    fn the_alert_tells_whose_certificate_was_not_liked() {
        let rejected = AcceptFailure::ClientRejectedOurCertificate { alert: "UnknownCA".into() };
        for (failure, cause) in [
            (AcceptFailure::ClientPinMismatch, Cause::WrongPin),
            (rejected, Cause::Intercepted),
            (AcceptFailure::ClientClock, Cause::ClockSkew),
            (AcceptFailure::ClientCertificateExpired, Cause::CertificateExpired),
            (AcceptFailure::Timeout, Cause::TlsTimeout),
        ] {
            assert_eq!(handshake_cause(&failure).0, cause);
        }
    }
}
