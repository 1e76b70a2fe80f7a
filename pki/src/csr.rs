//! Certificate requests: how one is made, and the only thing taken from one.
//!
//! A request may ask for anything: a CA flag, names, another organisation. None
//! of it is read. What a certificate says is decided by the controller; from the
//! request comes the public key, once its signature proves that the sender
//! holds the private half.

use rcgen::{CertificateParams, DistinguishedName};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::key::{KeyError, KeyPair, VerifiedKey};

/// The largest request that is looked at, in bytes. One with a P-384 key and
/// nothing else has about 400.
pub const MAX_LEN: usize = 16 * 1024;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsrError {
    /// Larger than [`MAX_LEN`].
    #[error("the request has {0} bytes, and {MAX_LEN} are allowed")]
    TooLarge(usize),
    /// Not one DER PKCS#10 request from first byte to last.
    #[error("the request is not PKCS#10 in DER")]
    Malformed,
    /// The key is of a kind or curve that is not certified.
    #[error("the request's key is not one of P-256, P-384 and Ed25519")]
    UnsupportedKey,
    /// The sender did not sign with the key it asks a certificate for.
    #[error("the request is not signed with its own key")]
    Signature,
}

/// A request for a certificate of `pair`, DER, with an empty subject and no
/// wishes.
pub fn make(pair: &KeyPair) -> Result<Vec<u8>, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(pair.signer()).map_err(|_| KeyError::Sign)?;
    Ok(request.der().to_vec())
}

/// The public key of a request, proven; everything else in it is ignored.
pub fn public_key(der: &[u8]) -> Result<VerifiedKey, CsrError> {
    if der.len() > MAX_LEN {
        return Err(CsrError::TooLarge(der.len()));
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let spki = request.certification_request_info.subject_pki.raw;
    // The kind first: a signature of a kind we refuse is not worth checking.
    let key = VerifiedKey::from_proven_spki(spki).map_err(|_| CsrError::UnsupportedKey)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(key)
}
