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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, IsCa, SanType};

    use super::*;
    use crate::pem;

    fn fixture(text: &str) -> Vec<u8> {
        pem::request_from_pem(text).unwrap()
    }

    #[test]
    fn our_own_request_gives_its_key() {
        let pair = KeyPair::generate().unwrap();
        assert_eq!(public_key(&make(&pair).unwrap()).unwrap().spki(), pair.spki());
        let ed25519 = public_key(&fixture(include_str!("../tests/data/ed25519.pem"))).unwrap();
        assert_eq!(ed25519.spki().len(), 44);
    }

    #[test]
    fn a_request_with_wishes_gives_its_key_and_nothing_else() {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["*.culvert.internal".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let uri = "spiffe://culvert.internal/replica/00000000-0000-0000-0000-000000000001";
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let request = params.serialize_request(pair.signer()).unwrap();
        // That the certificate then has none of it, the authority's tests say.
        assert_eq!(public_key(request.der()).unwrap(), pair.verified_key().unwrap());
    }

    #[test]
    fn weak_and_unknown_keys_are_refused() {
        for text in [
            include_str!("../tests/data/rsa1024.pem"),
            include_str!("../tests/data/secp256k1.pem"),
            include_str!("../tests/data/p192.pem"),
            include_str!("../tests/data/p256-explicit.pem"),
        ] {
            assert_eq!(public_key(&fixture(text)), Err(CsrError::UnsupportedKey), "{text}");
        }
        for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let request = CertificateParams::default().serialize_request(&pair).unwrap();
            assert_eq!(public_key(request.der()), Err(CsrError::UnsupportedKey));
        }
    }

    #[test]
    fn a_request_for_the_key_of_another_is_refused() {
        let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let request = make(&mine).unwrap();
        let at = request.windows(mine.spki().len()).position(|window| window == mine.spki()).unwrap();
        let mut forged = request;
        forged[at..at + other.spki().len()].copy_from_slice(&other.spki());
        assert_eq!(public_key(&forged), Err(CsrError::Signature));
    }

    #[test]
    fn size_and_ends_are_checked() {
        let request = make(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(public_key(&vec![0x30; MAX_LEN + 1]), Err(CsrError::TooLarge(MAX_LEN + 1)));
        assert_eq!(public_key(&[]), Err(CsrError::Malformed));
        let mut longer = request.clone();
        longer.push(0);
        assert_eq!(public_key(&longer), Err(CsrError::Malformed));
        for length in 0..request.len() {
            assert_eq!(public_key(&request[..length]), Err(CsrError::Malformed), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(public_key(&bytes).is_err());
        }

        #[test]
        fn a_changed_request_never_gives_another_key(at in any::<usize>(), bit in 0..8_u32) {
            let pair = KeyPair::generate().unwrap();
            let mut request = make(&pair).unwrap();
            let at = at % request.len();
            request[at] ^= 1 << bit;
            if let Ok(key) = public_key(&request) {
                prop_assert_eq!(key.spki(), pair.spki());
            }
        }
    }
}
