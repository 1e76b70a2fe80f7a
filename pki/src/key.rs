//! Key pairs, and public keys whose holder proved to have the private half.

use std::fmt;

use rcgen::{PublicKeyData, SigningKey, SubjectPublicKeyInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

use crate::pem;
use crate::pin::Pin;

/// Why a key was refused or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The system could not make a key.
    #[error("a key could not be made")]
    Generate,
    /// Not a PKCS#8 private key on P-256 or P-384.
    #[error("not a PKCS#8 private key on P-256 or P-384")]
    Malformed,
    /// The private key would not sign.
    #[error("the key did not sign")]
    Sign,
    /// Only P-256, P-384 and Ed25519 public keys are certified.
    #[error("the key type is not one of P-256, P-384 and Ed25519")]
    Unsupported,
}

/// A private key and its public half: P-256, or P-384 for a root.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// A fresh P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// A fresh P-384 key, for a root.
    pub(crate) fn generate_root() -> Result<Self, KeyError> {
        Self::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
    }

    fn generate_for(algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_for(algorithm).map(Self).map_err(|_| KeyError::Generate)
    }

    /// Reads a PKCS#8 DER key on P-256 or P-384.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let key = PrivatePkcs8KeyDer::from(der);
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384]
            .into_iter()
            .find_map(|algorithm| rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, algorithm).ok())
            .map(Self)
            .ok_or(KeyError::Malformed)
    }

    /// Reads a PEM block `PRIVATE KEY` with a PKCS#8 key on P-256 or P-384.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Malformed)?;
        Self::from_pkcs8(key.secret_pkcs8_der())
    }

    /// The private key as PKCS#8 DER.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialized_der().to_vec())
    }

    /// The private key as a PEM block `PRIVATE KEY`.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", self.0.serialized_der()))
    }

    /// The public half, DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The pin of the public half.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::of_spki(&self.spki())
    }

    /// The public half, ready to be certified: whoever has the pair needs no
    /// request to prove it.
    pub fn verified_key(&self) -> Result<VerifiedKey, KeyError> {
        VerifiedKey::from_proven_spki(&self.spki())
    }

    /// Signs with ECDSA and the hash of the curve's size (SHA-256 for P-256);
    /// the signature is ASN.1 DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        SigningKey::sign(&self.0, message).map_err(|_| KeyError::Sign)
    }

    pub(crate) fn signer(&self) -> &rcgen::KeyPair {
        &self.0
    }

    /// The form that rustls takes.
    pub(crate) fn for_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialized_der().to_vec()))
    }
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("pin", &self.pin()).finish_non_exhaustive()
    }
}

/// A public key of a kind we certify, whose holder proved to have the private
/// half: by a request it signed, or by being this process.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedKey {
    spki: Vec<u8>,
    certifiable: SubjectPublicKeyInfo,
}

impl VerifiedKey {
    /// `spki` must come from a request whose signature was checked, or from an
    /// own pair.
    pub(crate) fn from_proven_spki(spki: &[u8]) -> Result<Self, KeyError> {
        if !is_supported(spki) {
            return Err(KeyError::Unsupported);
        }
        let certifiable = SubjectPublicKeyInfo::from_der(spki).map_err(|_| KeyError::Unsupported)?;
        Ok(Self { spki: spki.to_vec(), certifiable })
    }

    /// DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The fingerprint that the store binds a registration to.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::of_spki(&self.spki)
    }

    pub(crate) fn certifiable(&self) -> &SubjectPublicKeyInfo {
        &self.certifiable
    }
}

impl fmt::Debug for VerifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedKey({})", self.pin())
    }
}

fn is_supported(spki: &[u8]) -> bool {
    let Ok((rest, parsed)) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki) else {
        return false;
    };
    if !rest.is_empty() {
        return false;
    }
    if parsed.algorithm.algorithm == OID_SIG_ED25519 {
        return parsed.algorithm.parameters.is_none();
    }
    let curve = parsed.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    parsed.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_survives_storage() {
        for pair in [KeyPair::generate().unwrap(), KeyPair::generate_root().unwrap()] {
            assert_eq!(KeyPair::from_pkcs8(&pair.to_pkcs8()).unwrap().spki(), pair.spki());
            assert_eq!(KeyPair::from_pem(&pair.to_pem()).unwrap().spki(), pair.spki());
            assert_eq!(pair.verified_key().unwrap().pin(), pair.pin());
        }
    }

    #[test]
    fn other_kinds_of_private_key_are_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_RSA_SHA256] {
            let other = rcgen::KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(KeyPair::from_pkcs8(other.serialized_der()).unwrap_err(), KeyError::Malformed);
        }
        assert_eq!(KeyPair::from_pem("nothing").unwrap_err(), KeyError::Malformed);
    }

    #[test]
    fn a_private_key_does_not_show_in_debug() {
        let pair = KeyPair::generate().unwrap();
        assert_eq!(format!("{pair:?}"), format!("KeyPair {{ pin: Pin({}), .. }}", pair.pin()));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(KeyPair::from_pkcs8(&bytes).is_err());
            prop_assert!(VerifiedKey::from_proven_spki(&bytes).is_err());
        }
    }
}
