//! PEM: certificates and requests as text, for kubeconfigs, files and the API.

use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use thiserror::Error;

/// Why PEM text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PemError {
    /// A block is broken.
    #[error("the PEM text is broken")]
    Malformed,
    /// No block of the wanted kind.
    #[error("the PEM text has no block of the kind {0}")]
    Missing(&'static str),
}

/// One PEM block with lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let digits = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// Certificates as PEM, in the order given.
pub fn certificates_to_pem<'c>(chain: impl IntoIterator<Item = &'c CertificateDer<'c>>) -> String {
    chain.into_iter().map(|certificate| encode("CERTIFICATE", certificate)).collect()
}

/// Every certificate in the text, in order; at least one.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|_| PemError::Malformed)?;
    if found.is_empty() { Err(PemError::Missing("CERTIFICATE")) } else { Ok(found) }
}

/// A certificate request as PEM.
#[must_use]
pub fn request_to_pem(der: &[u8]) -> String {
    encode("CERTIFICATE REQUEST", der)
}

/// The DER of the certificate request in the text; [`crate::csr::public_key`]
/// judges it.
pub fn request_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    let mut blocks = CertificateSigningRequestDer::pem_slice_iter(text.as_bytes());
    match blocks.next() {
        Some(Ok(request)) => Ok(request.to_vec()),
        Some(Err(_)) => Err(PemError::Malformed),
        None => Err(PemError::Missing("CERTIFICATE REQUEST")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn certificates_and_requests_read_back(
            blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..4),
        ) {
            let chain: Vec<_> = blobs.iter().map(|blob| CertificateDer::from(blob.clone())).collect();
            let text = certificates_to_pem(&chain);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(certificates_from_pem(&text).unwrap(), chain);
            prop_assert_eq!(request_from_pem(&request_to_pem(&blobs[0])).unwrap(), blobs[0].clone());
        }

        #[test]
        fn garbage_is_refused_calmly(text in ".{0,300}") {
            prop_assert!(certificates_from_pem(&text).is_err());
            prop_assert!(request_from_pem(&text).is_err());
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(certificates_from_pem(&request_to_pem(b"x")), Err(PemError::Missing("CERTIFICATE")));
        let cut = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n";
        assert_eq!(request_from_pem(cut), Err(PemError::Malformed));
    }
}
