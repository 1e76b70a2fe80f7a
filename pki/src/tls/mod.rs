//! TLS configurations for both ends, and a name for each way a handshake fails.
//!
//! TLS 1.3 only. The time comes from a [`TimeProvider`] that the caller gives,
//! so that rules about time can be tested without waiting.
//!
//! When a client refuses the server's certificate, the server hears nothing but
//! an alert. So the alert is chosen by cause, and
//! [`classify_accept_error`] reads it back:
//!
//! | cause at the client         | [`TlsFailure`]           | alert                     |
//! |-----------------------------|--------------------------|---------------------------|
//! | key is not the pinned one   | `WrongPin`               | `certificate_unknown`, 46 |
//! | foreign issuer              | `Intercepted`            | `certificate_unknown`, 46 |
//! | its clock, or an old cert   | `Expired`, `NotYetValid` | `certificate_expired`, 45 |
//! | other server name           | `WrongName`              | `bad_certificate`, 42     |
//! | wrong purpose, broken chain | `BadCertificate`         | any other                 |
//!
//! `Intercepted` shares an alert with `WrongPin`, which is harmless: whoever
//! intercepts gets that alert, and the controller behind gets none. A client that
//! is not ours and does not know our root (curl, a browser) sends `unknown_ca`, 48.
//!
//! Mistakes to avoid: a session ticket on a door that takes client certificates
//! lets an expired certificate in, because a resumed handshake checks none; a
//! client that resumes does not check its pin. Both are off here.

mod client;
mod failure;
mod outer;
mod server;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
pub use rustls::time_provider::TimeProvider;
use thiserror::Error;

pub use client::{ClientIdentity, pinned_client, trusted_client};
pub use failure::{AcceptFailure, TlsFailure, classify_accept_error};
pub use outer::outer_client;
pub use server::{ClientAuth, server_config};

/// Where a configuration takes the time from;
/// `Arc::new(rustls::time_provider::DefaultTimeProvider)` is the system's clock.
pub type Clock = Arc<dyn TimeProvider>;

/// Why a configuration could not be made.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TlsConfigError {
    /// A pinned client needs a pin.
    #[error("no pin was given")]
    NoPin,
    /// Key and certificate do not fit, or a root cannot be used.
    #[error("the TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verifier of client certificates could not be made.
    #[error("the verifier of client certificates: {0}")]
    Verifier(String),
}

/// aws-lc-rs with its defaults, post-quantum hybrid key exchange first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
