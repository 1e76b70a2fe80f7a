//! The client's end of a TLS session that only gets through, and protects nothing.
//!
//! Where a box on the way ends TLS, what the agent says to that box carries another TLS session inside, which proves
//! both ends to each other. So the box may show any certificate: nothing is believed for it, and no secret is said to
//! it.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::{Clock, TlsConfigError, provider};
use crate::verify::algorithms;

/// A client that takes any certificate, by TLS 1.2 or 1.3, as old boxes speak no newer one. Only for what carries
/// an inner session of [`super::pinned_client`] or [`super::trusted_client`].
pub fn outer_client(alpn: &[&[u8]], clock: Clock) -> Result<ClientConfig, TlsConfigError> {
    let mut config = ClientConfig::builder_with_details(provider(), clock)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever { algorithms: algorithms() }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[derive(Debug)]
struct Whoever {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
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
