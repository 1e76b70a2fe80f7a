//! The client's end: full WebPKI verification below a root that is pinned or
//! known, with a diagnosis when it fails.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::failure::{diagnose, intercepted};
use super::{Clock, TlsConfigError, provider};
use crate::key::KeyPair;
use crate::pin::Pin;
use crate::verify::{Roots, algorithms};

/// What a client shows of itself.
#[derive(Debug, Clone, Copy)]
pub struct ClientIdentity<'k> {
    /// Leaf first, without the root.
    pub chain: &'k [CertificateDer<'static>],
    /// The key of the leaf.
    pub key: &'k KeyPair,
}

/// A client that knows nothing of the server but the pins of its roots: the
/// presented certificate whose key has a pin becomes the only root for that
/// handshake, and the leaf is verified below it, server name included.
pub fn pinned_client(pins: &[Pin], alpn: &[&[u8]], clock: Clock) -> Result<ClientConfig, TlsConfigError> {
    if pins.is_empty() {
        return Err(TlsConfigError::NoPin);
    }
    config(pins.to_vec(), None, None, alpn, clock)
}

/// A client that knows the server's roots, and shows a certificate if it has one.
pub fn trusted_client(
    roots: &Roots,
    identity: Option<ClientIdentity<'_>>,
    alpn: &[&[u8]],
    clock: Clock,
) -> Result<ClientConfig, TlsConfigError> {
    let pins = roots.pins().map_err(|error| TlsConfigError::Verifier(error.to_string()))?;
    config(pins, Some(roots.store().clone()), identity, alpn, clock)
}

fn config(
    pins: Vec<Pin>,
    roots: Option<RootCertStore>,
    identity: Option<ClientIdentity<'_>>,
    alpn: &[&[u8]],
    clock: Clock,
) -> Result<ClientConfig, TlsConfigError> {
    let verifier = Arc::new(Verifier { pins, roots, algorithms: algorithms() });
    let builder = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { chain, key }) => {
            builder.with_client_auth_cert(chain.to_vec(), key.for_rustls())?
        }
    };
    // A resumed handshake shows no certificate, so there would be no pin to check.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    pins: Vec<Pin>,
    /// None when nothing but the pins is known.
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> bool {
        Pin::of_certificate(certificate).is_ok_and(|pin| self.pins.contains(&pin))
    }

    /// The roots for one handshake: without roots of its own the client takes the
    /// presented certificates that have a pin, which may be none.
    fn roots(&self, presented: &[CertificateDer<'_>]) -> RootCertStore {
        self.roots.clone().unwrap_or_else(|| {
            let pinned = presented.iter().filter(|certificate| self.has_pin(certificate));
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(pinned.map(|certificate| certificate.clone().into_owned()));
            roots
        })
    }

    /// Errors about time and purpose speak for themselves and have alerts of
    /// their own. A chain that leads to no trusted root is looked at again, to
    /// say whose it is.
    fn explained(&self, error: Error, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Error {
        let foreign = matches!(
            error,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
        );
        if !foreign {
            return error;
        }
        // Whoever shows the right root without a leaf below it borrowed the root.
        let borrowed = others.iter().any(|certificate| self.has_pin(certificate));
        let failure = if borrowed { intercepted(leaf) } else { diagnose(leaf, others) };
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let roots = self.roots(intermediates);
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, self.algorithms.all)
            .map_err(|error| self.explained(error, end_entity, intermediates))?;
        verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
