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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::authority::Authority;
    use crate::name::{Identity, Purpose};

    struct Agent {
        pair: KeyPair,
        certificate: Vec<u8>,
        csr: Vec<u8>,
    }

    fn agent() -> Agent {
        let now = datetime!(2026-11-23 12:00 UTC);
        let org = Uuid::from_u128(1);
        let root = Authority::root(&"culvert.internal".parse().unwrap(), now).unwrap();
        let agents = root.intermediate(Purpose::Agents(org), now).unwrap();
        let pair = KeyPair::generate().unwrap();
        let identity = Identity::Agent { org, agent: Uuid::from_u128(2) };
        let issued =
            agents.issue_identity(identity, &pair.verified_key().unwrap(), now, Duration::days(1)).unwrap();
        let csr = csr::make(&pair).unwrap();
        Agent { pair, certificate: issued.certificate.to_vec(), csr }
    }

    impl Agent {
        fn statement(&self) -> Statement<'_> {
            Statement {
                certificate: &self.certificate,
                csr: &self.csr,
                generation: 3,
                clock_ms: 1_764_000_000_000,
                channel_binding: &[9; 32],
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_contract() {
        let statement = Statement {
            certificate: b"cert",
            csr: b"csr",
            generation: 1,
            clock_ms: 2,
            channel_binding: &[3; 32],
        };
        let bytes = statement.bytes();
        assert_eq!(bytes.len(), 17 + 32 + 32 + 8 + 8 + 32);
        assert_eq!(&bytes[..17], b"culvert-rejoin-v1");
        assert_eq!(bytes[17..49], Sha256::digest(b"cert")[..]);
        assert_eq!(bytes[49..81], Sha256::digest(b"csr")[..]);
        assert_eq!(bytes[81..97], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(bytes[97..], [3; 32]);
    }

    #[test]
    fn the_holder_of_the_key_is_believed_and_nobody_else() {
        let (agent, other) = (agent(), KeyPair::generate().unwrap());
        let statement = agent.statement();
        let signature = statement.sign(&agent.pair).unwrap();
        assert_eq!(statement.verify(&signature).unwrap().spki(), agent.pair.spki());
        let forged = statement.sign(&other).unwrap();
        assert_eq!(statement.verify(&forged), Err(RejoinError::Signature));
    }

    #[test]
    fn a_signature_holds_for_its_own_statement_only() {
        let agent = agent();
        let statement = agent.statement();
        let signature = statement.sign(&agent.pair).unwrap();
        let renewed = csr::make(&agent.pair).unwrap();
        for changed in [
            Statement { generation: 4, ..statement },
            Statement { clock_ms: 0, ..statement },
            Statement { channel_binding: &[8; 32], ..statement },
            Statement { csr: &renewed, ..statement },
        ] {
            assert_eq!(changed.verify(&signature), Err(RejoinError::Signature), "{changed:?}");
        }
    }

    #[test]
    fn the_request_must_be_for_the_same_key() {
        let agent = agent();
        let other = csr::make(&KeyPair::generate().unwrap()).unwrap();
        for (csr, refused) in [
            (other.as_slice(), RejoinError::OtherKey),
            (b"x".as_slice(), RejoinError::Request(CsrError::Malformed)),
        ] {
            let statement = Statement { csr, ..agent.statement() };
            let signature = statement.sign(&agent.pair).unwrap();
            assert_eq!(statement.verify(&signature), Err(refused));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let agent = agent();
            prop_assert_eq!(agent.statement().verify(&bytes), Err(RejoinError::Signature));
            let statement = Statement { certificate: &bytes, ..agent.statement() };
            prop_assert!(statement.verify(&bytes).is_err());
        }
    }
}
