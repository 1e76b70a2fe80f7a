//! What went wrong in a handshake, in words each side can act on.

use std::error::Error as StdError;
use std::io;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::name;
use crate::pin::Pin;
use crate::verify::from_unix;

/// Characters of an issuer's name that are kept; whoever intercepts chooses it.
const MAX_ISSUER: usize = 160;

/// Why a client did not go on with a server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsFailure {
    /// The server is a Culvert controller with another root than the one known here.
    #[error("the controller's root key is {presented}, which is not the one expected here")]
    WrongPin {
        /// The pin of the root that was presented.
        presented: Pin,
    },
    /// Someone between here and the controller answered with a certificate of its own.
    #[error("the connection is intercepted: the certificate was issued by {issuer}")]
    Intercepted {
        /// Common name and organisation of the leaf's issuer, as it calls itself.
        issuer: String,
    },
    /// The server's certificate begins later than the clock here says it is.
    #[error("the controller's certificate begins at {not_before}, and the clock here says {now}")]
    NotYetValid {
        /// Start of validity.
        not_before: OffsetDateTime,
        /// The clock here.
        now: OffsetDateTime,
    },
    /// The server's certificate ended before what the clock here says it is.
    #[error("the controller's certificate ended at {not_after}, and the clock here says {now}")]
    Expired {
        /// End of validity.
        not_after: OffsetDateTime,
        /// The clock here.
        now: OffsetDateTime,
    },
    /// The certificate is for other names than the one asked for.
    #[error("the controller's certificate is for {}, not for {expected}", presented.join(", "))]
    WrongName {
        /// The name asked for.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The certificate cannot be used for another reason.
    #[error("the controller's certificate cannot be used: {0}")]
    BadCertificate(String),
    /// The server says that the certificate shown to it has expired.
    #[error("the controller says that this side's certificate has expired")]
    OwnCertificateExpired,
    /// The server refused with another alert.
    #[error("the controller refused the handshake with the alert {alert}")]
    Refused {
        /// The alert's name.
        alert: String,
    },
    /// The other end does not speak TLS, as a plain HTTP proxy.
    #[error("the other end does not speak TLS")]
    NotTls,
    /// Anything else of the TLS protocol.
    #[error("the TLS handshake failed: {0}")]
    Protocol(String),
}

impl TlsFailure {
    /// Finds the TLS failure in an error of a connection, such as the
    /// [`io::Error`] that a handshake returns; `None` when TLS was not the cause.
    #[must_use]
    pub fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        rustls_cause(error).map(Self::from)
    }

    /// A stable name for reports and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongPin { .. } => "wrong_pin",
            Self::Intercepted { .. } => "tls_intercepted",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::Expired { .. } => "certificate_expired",
            Self::WrongName { .. } => "wrong_server_name",
            Self::BadCertificate(_) => "bad_certificate",
            Self::OwnCertificateExpired => "own_certificate_expired",
            Self::Refused { .. } => "tls_refused",
            Self::NotTls => "not_tls",
            Self::Protocol(_) => "tls_failed",
        }
    }
}

impl From<&rustls::Error> for TlsFailure {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => from_certificate_error(error),
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Self::OwnCertificateExpired,
            rustls::Error::AlertReceived(alert) => Self::Refused { alert: format!("{alert:?}") },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Protocol(other.to_string()),
        }
    }
}

fn from_certificate_error(error: &CertificateError) -> TlsFailure {
    match error {
        CertificateError::Other(other) => other
            .0
            .downcast_ref::<TlsFailure>()
            .cloned()
            .unwrap_or_else(|| TlsFailure::BadCertificate(other.0.to_string())),
        CertificateError::ExpiredContext { time, not_after } => {
            TlsFailure::Expired { not_after: from_unix(*not_after), now: from_unix(*time) }
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            TlsFailure::NotYetValid { not_before: from_unix(*not_before), now: from_unix(*time) }
        }
        CertificateError::NotValidForNameContext { expected, presented } => TlsFailure::WrongName {
            expected: expected.to_str().into_owned(),
            presented: presented.iter().map(|name| printable(name)).collect(),
        },
        other => TlsFailure::BadCertificate(other.to_string()),
    }
}

/// The first TLS error in a chain of causes. An [`io::Error`] hides what it
/// wraps from `source`, so it is opened.
fn rustls_cause<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whose chain it is that leads to no trusted root: another controller's, when a
/// certificate in it carries the name of one of our authorities, or a stranger's.
pub(super) fn diagnose(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> TlsFailure {
    let root = others.iter().find(|certificate| is_culvert_root(certificate));
    // Any root is public, so a stranger can show it; the leaf's issuer must be ours as well.
    let ours = issuer_of(leaf).is_some_and(|issuer| issuer.organisation.as_deref() == Some("Culvert"));
    match root.and_then(|root| Pin::of_certificate(root).ok()) {
        Some(presented) if ours => TlsFailure::WrongPin { presented },
        _ => intercepted(leaf),
    }
}

/// The failure that names the issuer of `leaf`.
pub(super) fn intercepted(leaf: &CertificateDer<'_>) -> TlsFailure {
    TlsFailure::Intercepted { issuer: issuer_text(leaf) }
}

fn is_culvert_root(certificate: &CertificateDer<'_>) -> bool {
    name::sole_uri(certificate).is_ok_and(|uri| uri.starts_with("spiffe://") && uri.ends_with("/ca/root"))
}

struct IssuerName {
    common_name: Option<String>,
    organisation: Option<String>,
}

fn issuer_of(leaf: &CertificateDer<'_>) -> Option<IssuerName> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let first = |text: Option<&str>| text.map(printable).filter(|text| !text.is_empty());
    let issuer: &X509Name<'_> = parsed.issuer();
    Some(IssuerName {
        common_name: first(issuer.iter_common_name().next().and_then(|name| name.as_str().ok())),
        organisation: first(issuer.iter_organization().next().and_then(|name| name.as_str().ok())),
    })
}

fn issuer_text(leaf: &CertificateDer<'_>) -> String {
    match issuer_of(leaf) {
        Some(IssuerName { common_name: Some(name), organisation: Some(of) }) => format!("{name} ({of})"),
        Some(IssuerName { common_name: Some(name), organisation: None }) => name,
        Some(IssuerName { common_name: None, organisation: Some(of) }) => of,
        _ => "an issuer without a name".to_owned(),
    }
}

/// Text from the other end, made fit for one line of a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ISSUER).collect()
}

/// Why a server did not go on with a client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcceptFailure {
    /// The client pins another root key: its join token is of another controller.
    #[error("the client expects another root key")]
    ClientPinMismatch,
    /// The client refused our certificate for another reason.
    #[error("the client refused our certificate with the alert {alert}")]
    ClientRejectedOurCertificate {
        /// The alert's name.
        alert: String,
    },
    /// By the client's clock our certificate is not valid now.
    #[error("by the client's clock our certificate is not valid now")]
    ClientClock,
    /// The client's certificate has expired.
    #[error("the client's certificate has expired")]
    ClientCertificateExpired,
    /// The client's certificate is not one of ours, or is broken.
    #[error("the client's certificate is not trusted: {reason}")]
    UntrustedClientCertificate {
        /// What the verifier said.
        reason: String,
    },
    /// The client does not speak TLS, or not TLS 1.3.
    #[error("the client does not speak TLS 1.3")]
    NotTls,
    /// The client was too slow.
    #[error("the handshake took too long")]
    Timeout,
    /// The client went away.
    #[error("the client closed the connection")]
    Closed,
    /// Anything else.
    #[error("the handshake failed: {0}")]
    Other(String),
}

impl AcceptFailure {
    /// A stable name for reports and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ClientPinMismatch => "wrong_pin",
            Self::ClientRejectedOurCertificate { .. } => "certificate_rejected",
            Self::ClientClock => "clock_skew",
            Self::ClientCertificateExpired => "client_certificate_expired",
            Self::UntrustedClientCertificate { .. } => "client_certificate_untrusted",
            Self::NotTls => "not_tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Other(_) => "tls_failed",
        }
    }
}

/// Names the cause of a handshake that failed at the server's end.
#[must_use]
pub fn classify_accept_error(error: &io::Error) -> AcceptFailure {
    match (rustls_cause(error), error.kind()) {
        (Some(cause), _) => from_rustls(cause),
        (None, io::ErrorKind::TimedOut) => AcceptFailure::Timeout,
        (
            None,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe,
        ) => AcceptFailure::Closed,
        (None, _) => AcceptFailure::Other(error.to_string()),
    }
}

fn from_rustls(error: &rustls::Error) -> AcceptFailure {
    match error {
        rustls::Error::AlertReceived(alert) => from_alert(*alert),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => AcceptFailure::ClientCertificateExpired,
        rustls::Error::InvalidCertificate(reason) => {
            AcceptFailure::UntrustedClientCertificate { reason: printable(&reason.to_string()) }
        }
        rustls::Error::InvalidMessage(_) | rustls::Error::PeerIncompatible(_) => AcceptFailure::NotTls,
        other => AcceptFailure::Other(printable(&other.to_string())),
    }
}

fn from_alert(alert: AlertDescription) -> AcceptFailure {
    match alert {
        AlertDescription::CertificateUnknown => AcceptFailure::ClientPinMismatch,
        AlertDescription::CertificateExpired => AcceptFailure::ClientClock,
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => AcceptFailure::Closed,
        AlertDescription::BadCertificate
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            AcceptFailure::ClientRejectedOurCertificate { alert: format!("{alert:?}") }
        }
        other => AcceptFailure::Other(format!("alert {other:?} received")),
    }
}
