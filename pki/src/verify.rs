//! Whether a peer is who its certificate says: the whole chain, the purpose, and
//! that the authority which signed was the one allowed to.
//!
//! A chain that leads to our root is not enough: every organisation has its own
//! authority below the same root. The authority's certificate carries a URI name
//! of its own ([`Purpose`]), put there under the root's signature, and the leaf's
//! identity must be one that exactly this authority may sign. Whether the
//! identity is still registered, locked or revoked is the store's to say.

use std::fmt;

use data_encoding::HEXLOWER;
use rustls::RootCertStore;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::{self, Identity, NameError, Purpose, TrustDomain};
use crate::pin::{Pin, PinError};

/// Certificates a peer may send; ours are two or three.
const MAX_CHAIN: usize = 8;

/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2, as DER content octets.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// More certificates than any of our peers has reason to send.
    #[error("{0} certificates were presented, and {MAX_CHAIN} are allowed")]
    ChainTooLong(usize),
    /// A certificate cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The certificate's time is over.
    #[error("the certificate expired at {not_after} and it is {now}")]
    Expired {
        /// End of validity.
        not_after: OffsetDateTime,
        /// Time of the check.
        now: OffsetDateTime,
    },
    /// The certificate's time has not come.
    #[error("the certificate is valid from {not_before} and it is {now}")]
    NotYetValid {
        /// Start of validity.
        not_before: OffsetDateTime,
        /// Time of the check.
        now: OffsetDateTime,
    },
    /// No path of valid signatures leads to a root that is trusted here.
    #[error("the certificate does not lead to a trusted root: {0}")]
    Untrusted(String),
    /// Not made for a TLS client.
    #[error("the certificate is not for a client")]
    WrongUse,
    /// The leaf or its issuer has no name we give.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Signed by an authority that may not sign for this identity, such as that
    /// of another organisation.
    #[error("the authority that signed may not sign for this identity")]
    WrongIssuer {
        /// Who the leaf says it is.
        identity: Identity,
        /// What the authority is for.
        issuer: Purpose,
    },
}

/// Why a set of roots was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// With no root nothing could be trusted.
    #[error("no root certificate was given")]
    Empty,
    /// A root cannot be read.
    #[error("a root certificate cannot be read")]
    Malformed,
}

/// Root certificates that are trusted: one, or two while a root is replaced.
#[derive(Debug, Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

impl Roots {
    /// Takes at least one root certificate.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, RootsError> {
        let certificates: Vec<_> = roots.into_iter().collect();
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|_| RootsError::Malformed)?;
        }
        if certificates.is_empty() { Err(RootsError::Empty) } else { Ok(Self { certificates, store }) }
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The pins of the roots' keys.
    pub fn pins(&self) -> Result<Vec<Pin>, PinError> {
        self.certificates.iter().map(Pin::of_certificate).collect()
    }

    pub(crate) fn store(&self) -> &RootCertStore {
        &self.store
    }
}

/// Serial number of a certificate, as lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial(String);

impl Serial {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(HEXLOWER.encode(bytes))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a whole certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A peer that proved its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// The organisation, by the authority that signed; none for replicas.
    pub org: Option<uuid::Uuid>,
    /// Start of the certificate's validity.
    pub not_before: OffsetDateTime,
    /// End of the certificate's validity.
    pub not_after: OffsetDateTime,
    /// The certificate's serial number.
    pub serial: Serial,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// The pin of the certificate's key.
    pub key: Pin,
}

/// Checks the chain a peer presented, leaf first, at the time `now`.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Peer, PeerError> {
    let (leaf, issuers) = chain.split_first().ok_or(PeerError::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(PeerError::ChainTooLong(chain.len()));
    }
    let parsed = parse(leaf)?;
    let purpose = verified_issuer(leaf, issuers, roots, domain, now)?;
    peer(leaf, &parsed, purpose, domain)
}

/// As [`verify_peer`], but the leaf's time may be over: its chain is judged as
/// of the last second in which the leaf was valid. For an agent that comes back
/// after it expired; `issuers` are the controller's own authorities.
pub fn verify_lapsed(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Peer, PeerError> {
    let parsed = parse(leaf)?;
    let at = now.min(parsed.validity().not_after.to_datetime());
    let purpose = verified_issuer(leaf, issuers, roots, domain, at)?;
    peer(leaf, &parsed, purpose, domain)
}

/// What the authority that signed `leaf` is for, once every signature up to a
/// root holds.
fn verified_issuer(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Purpose, PeerError> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| PeerError::Malformed)?;
    let path = end_entity
        .verify_for_usage(
            algorithms().all,
            &roots.store.roots,
            issuers,
            unix(now),
            // Required, not only if present: a leaf that names no use has none.
            KeyUsage::required(CLIENT_AUTH),
            None,
            None,
        )
        .map_err(|error| refused(error, now))?;
    let issuer = path.intermediate_certificates().next();
    match issuer {
        Some(issuer) => Ok(name::purpose_of(&issuer.der(), domain)?),
        // A root signs authorities only.
        None => Err(PeerError::Untrusted("signed by a root directly".to_owned())),
    }
}

fn peer(
    leaf: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    issuer: Purpose,
    domain: &TrustDomain,
) -> Result<Peer, PeerError> {
    let identity = name::identity_of(leaf, domain)?;
    if identity.issuer() != issuer {
        return Err(PeerError::WrongIssuer { identity, issuer });
    }
    Ok(Peer {
        identity,
        org: identity.org(),
        not_before: parsed.validity().not_before.to_datetime(),
        not_after: parsed.validity().not_after.to_datetime(),
        serial: Serial::from_bytes(parsed.raw_serial()),
        fingerprint: Fingerprint::of(leaf),
        key: Pin::of_spki(parsed.public_key().raw),
    })
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(PeerError::Malformed),
    }
}

fn refused(error: webpki::Error, now: OffsetDateTime) -> PeerError {
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            PeerError::Expired { not_after: from_unix(not_after), now }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            PeerError::NotYetValid { not_before: from_unix(not_before), now }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => PeerError::WrongUse,
        other => PeerError::Untrusted(format!("{other:?}")),
    }
}

/// The signature algorithms of certificates and handshakes.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

/// A time before 1970 counts as 1970.
pub(crate) fn unix(time: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// A time beyond the year 9999 counts as the epoch; no certificate has one.
pub(crate) fn from_unix(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
