//! Why this machine believes that the controller is the controller.
//!
//! Nothing is ever sent over a connection that was not verified. To learn a pin,
//! a handshake is begun that must fail, and the pin is taken from its error.

use std::sync::Arc;

use culvert_pki::pem;
use culvert_pki::pin::Pin;
use culvert_pki::tls::{self, Clock};
use culvert_pki::verify::Roots;
use rustls::ClientConfig;
use rustls::time_provider::DefaultTimeProvider;

use crate::failure::{Exit, Failure};

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

fn clock() -> Clock {
    Arc::new(DefaultTimeProvider)
}

fn broken(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, what).because(why)
}

/// TLS that trusts whatever chain ends in a root with this pin.
pub(crate) fn pinned(pin: Pin) -> Result<ClientConfig, Failure> {
    tls::pinned_client(&[pin], ALPN, clock()).map_err(|error| broken("cannot set up TLS", error))
}

/// TLS that trusts nobody, but whose refusal names what was presented.
pub(crate) fn nobody() -> Result<ClientConfig, Failure> {
    pinned(Pin::from([0; 32]))
}

/// TLS below the roots in a PEM text.
pub(crate) fn authority(ca_pem: &str) -> Result<ClientConfig, Failure> {
    tls::trusted_client(&roots(ca_pem)?, None, ALPN, clock())
        .map_err(|error| broken("cannot use the CA", error))
}

/// The pins of the roots in a PEM text; at least one.
pub(crate) fn pins(ca_pem: &str) -> Result<Vec<Pin>, Failure> {
    roots(ca_pem)?.pins().map_err(|error| broken("cannot read the CA", error))
}

fn roots(ca_pem: &str) -> Result<Roots, Failure> {
    let certificates =
        pem::certificates_from_pem(ca_pem).map_err(|error| broken("cannot read the CA", error))?;
    Roots::new(certificates).map_err(|error| broken("cannot use the CA", error))
}
