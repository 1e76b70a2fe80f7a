//! The proof with which an agent comes back after its certificate expired.
//!
//! It signs, with the key of the expired certificate, everything it sends and
//! the TLS session it sends it over: a proof that was overheard or taken from
//! another session is worth nothing.

use rustls::ConnectionCommon;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::alg_id;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::csr::{self, CsrError};
use crate::key::{KeyError, KeyPair, VerifiedKey};
use crate::verify::algorithms;

/// Label of the exporter of RFC 9266.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
/// Keeps these signatures apart from all others made with the same key.
const CONTEXT: &[u8] = b"culvert-rejoin-v1";

/// Why a proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RejoinError {
    /// The certificate cannot be read or its key is not on P-256.
    #[error("the certificate cannot be read or its key is not on P-256")]
    Certificate,
    /// The request is refused for itself.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The request is for another key than the certificate's.
    #[error("the request is for another key than the certificate's")]
    OtherKey,
    /// The signature does not hold.
    #[error("the signature does not hold")]
    Signature,
}

/// What is signed. The fields are those of `RejoinRequest`.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// The expired certificate, DER.
    pub certificate: &'a [u8],
    /// The request for the new one, DER, made with the same key.
    pub csr: &'a [u8],
    /// The counter of the last certificate.
    pub generation: u64,
    /// The agent's clock, milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// From [`channel_binding`] of the connection.
    pub channel_binding: &'a [u8; 32],
}

/// The 32 bytes that name a TLS session to both its ends (RFC 9266,
/// `tls-exporter`).
pub fn channel_binding<D>(connection: &ConnectionCommon<D>) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], EXPORTER, None)
}

impl Statement<'_> {
    /// The bytes that are signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = CONTEXT.to_vec();
        bytes.extend_from_slice(&Sha256::digest(self.certificate));
        bytes.extend_from_slice(&Sha256::digest(self.csr));
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.clock_ms.to_be_bytes());
        bytes.extend_from_slice(self.channel_binding);
        bytes
    }

    /// ECDSA P-256 with SHA-256, ASN.1 DER.
    pub fn sign(&self, key: &KeyPair) -> Result<Vec<u8>, KeyError> {
        key.sign(&self.bytes())
    }

    /// Checks the signature with the certificate's key, and that the request is
    /// for that key; gives the key. Whether the certificate was ever ours is for
    /// [`crate::verify::verify_lapsed`] to say.
    pub fn verify(&self, signature: &[u8]) -> Result<VerifiedKey, RejoinError> {
        let certificate = CertificateDer::from(self.certificate);
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| RejoinError::Certificate)?;
        let algorithm = algorithms()
            .all
            .iter()
            .find(|algorithm| {
                algorithm.public_key_alg_id() == alg_id::ECDSA_P256
                    && algorithm.signature_alg_id() == alg_id::ECDSA_SHA256
            })
            .ok_or(RejoinError::Certificate)?;
        let point = parsed.public_key().subject_public_key.data.as_ref();
        algorithm.verify_signature(point, &self.bytes(), signature).map_err(|_| RejoinError::Signature)?;
        let key = csr::public_key(self.csr)?;
        if key.spki() == parsed.public_key().raw { Ok(key) } else { Err(RejoinError::OtherKey) }
    }
}
