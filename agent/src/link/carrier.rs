//! What carries the TLS session with the controller: the connection itself, or a WebSocket where a box on the way ends
//! TLS. Chosen on evidence, and looked at again after a while.
use std::time::{Duration, Instant};

use culvert_pki::tls::TlsFailure;
use culvert_tunnel::{DialError, Phase, Via};

use crate::config::Carrier;

/// How long a WebSocket that worked is tried first: then the straight way may be open again, and it is the better one.
const KEPT: Duration = Duration::from_hours(1);

/// What an agent knows of its way.
#[derive(Debug, Default)]
pub(super) struct Known {
    learned: Option<Learned>,
}

#[derive(Debug)]
struct Learned {
    at: Instant,
    why: String,
}

impl Known {
    /// What to try first.
    pub(super) fn first(&self, carrier: Carrier, now: Instant) -> Via {
        match carrier {
            Carrier::Direct => Via::Direct,
            Carrier::Websocket => Via::WebSocket,
            Carrier::Auto if self.learned.as_ref().is_some_and(|learned| now < learned.at + KEPT) => {
                Via::WebSocket
            }
            Carrier::Auto => Via::Direct,
        }
    }

    /// Whether to try a WebSocket next, after `via` failed so.
    pub(super) fn second(carrier: Carrier, via: Via, error: &DialError) -> bool {
        carrier == Carrier::Auto && via == Via::Direct && is_opened(error)
    }

    /// A WebSocket works, where the straight way failed for this cause.
    pub(super) fn learn(&mut self, why: String, now: Instant) {
        self.learned = Some(Learned { at: now, why });
    }

    /// A way failed: the next attempt begins with the straight one.
    pub(super) fn forget(&mut self) {
        self.learned = None;
    }

    /// Why a WebSocket is used though none was asked for.
    pub(super) fn why(&self) -> Option<&str> {
        self.learned.as_ref().map(|learned| learned.why.as_str())
    }
}

/// Whether this is how it looks when a box on the way ends TLS, or lets no other than HTTP through. A controller with
/// another root is none: there is nothing to get around.
fn is_opened(error: &DialError) -> bool {
    match error {
        DialError::Tls(failure) => match failure {
            TlsFailure::Intercepted { .. }
            | TlsFailure::WrongName { .. }
            | TlsFailure::BadCertificate(_)
            | TlsFailure::Refused { .. }
            | TlsFailure::Protocol(_) => true,
            TlsFailure::WrongPin { .. }
            | TlsFailure::NotYetValid { .. }
            | TlsFailure::Expired { .. }
            | TlsFailure::OwnCertificateExpired
            | TlsFailure::NotTls => false,
        },
        DialError::TlsBroken(_) | DialError::Timeout(Phase::Tls) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intercepted() -> DialError {
        DialError::Tls(TlsFailure::Intercepted { issuer: "Corp Inspect".to_owned() })
    }

    #[test]
    fn a_websocket_is_tried_after_evidence_only_and_only_when_left_to_choose() {
        let second = |carrier, error: &DialError| Known::second(carrier, Via::Direct, error);
        assert!(second(Carrier::Auto, &intercepted()));
        assert!(second(Carrier::Auto, &DialError::Timeout(Phase::Tls)));
        assert!(second(Carrier::Auto, &DialError::TlsBroken(std::io::ErrorKind::ConnectionReset.into())));
        assert!(!second(Carrier::Auto, &DialError::Timeout(Phase::Connect)));
        assert!(!second(Carrier::Auto, &DialError::ProxyAuth));
        assert!(!second(Carrier::Direct, &intercepted()));
        assert!(!Known::second(Carrier::Auto, Via::WebSocket, &intercepted()), "not a third time");
        let pin = culvert_pki::pin::Pin::of_spki(b"another");
        assert!(!second(Carrier::Auto, &DialError::Tls(TlsFailure::WrongPin { presented: pin })));
    }

    #[test]
    fn what_was_learned_is_used_for_an_hour_and_forgotten_when_it_fails() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert_eq!(known.first(Carrier::Auto, now), Via::Direct);
        known.learn("inspected".to_owned(), now);
        assert_eq!((known.first(Carrier::Auto, now), known.why()), (Via::WebSocket, Some("inspected")));
        assert_eq!(known.first(Carrier::Direct, now), Via::Direct);
        assert_eq!(known.first(Carrier::Auto, now + KEPT), Via::Direct);
        known.forget();
        assert_eq!((known.first(Carrier::Auto, now), known.why()), (Via::Direct, None));
        assert_eq!(known.first(Carrier::Websocket, now), Via::WebSocket);
    }
}
