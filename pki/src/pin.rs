//! The pin: a fingerprint of a public key, short enough to travel in a token.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a pin was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PinError {
    /// Not the base64url of 32 bytes, with or without `sha256:` before it.
    #[error("a pin is sha256: and 43 characters of base64url")]
    Text,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Certificate,
}

/// SHA-256 of a DER SubjectPublicKeyInfo. It names the key and not the
/// certificate, so it outlives a certificate that is made again for its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a public key.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The pin of the key in a certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, PinError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PinError::Certificate)?;
        Ok(Self::of_spki(parsed.public_key().raw))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Base64url without padding, as inside a join token.
    #[must_use]
    pub fn base64url(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }
}

impl From<[u8; 32]> for Pin {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let bytes = BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| PinError::Text)?;
        bytes.try_into().map(Self).map_err(|_| PinError::Text)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.base64url())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back_with_and_without_its_prefix() {
        let pin = Pin::of_spki(b"key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(pin.base64url().parse(), Ok(pin));
        let short = pin.base64url().replace(|c: char| c.is_ascii_digit(), "");
        for bad in ["", "sha256:", "sha1:abc", "===", short.get(..40).unwrap_or(&short)] {
            assert_eq!(bad.parse::<Pin>(), Err(PinError::Text), "{bad:?}");
        }
    }
}
