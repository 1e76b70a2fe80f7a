//! For tests: certificates that an [`Authority`](crate::authority::Authority) refuses to sign.

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, SanType};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::key::{KeyPair, VerifiedKey};

/// A client leaf, valid for a day from `now`, with these URIs as names.
pub(crate) fn client_params(uris: &[String], now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - Duration::minutes(1);
    params.not_after = now + Duration::days(1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
    params
}

/// Signs whatever `params` say, in the name of `issuer`.
pub(crate) fn sign(
    params: &CertificateParams,
    key: &VerifiedKey,
    issuer: &CertificateDer<'static>,
    issuer_key: &KeyPair,
) -> CertificateDer<'static> {
    let issuer = Issuer::from_ca_cert_der(issuer, issuer_key.signer()).unwrap();
    params.signed_by(key.certifiable(), &issuer).unwrap().der().clone()
}
