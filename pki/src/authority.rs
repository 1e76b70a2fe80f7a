//! Certificate authorities, and the only profiles they sign.
//!
//! root (P-384, 10 years, path length 1) → one authority per [`Purpose`] (P-256,
//! 5 years, path length 0) → leaves. Serial, validity and both key identifiers
//! are always set: what rcgen puts in their place is valid until 4096 and has no
//! authority key identifier.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, DnsName};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::key::{KeyError, KeyPair, VerifiedKey};
use crate::name::{self, Identity, NameError, Purpose, TrustDomain};
use crate::pin::Pin;
use crate::random::{self, NoRandomness};
use crate::verify::{Fingerprint, Serial};

/// How far before the time of issue a certificate begins, for peers whose clock
/// is behind.
pub const BACKDATE: Duration = Duration::minutes(5);
/// Life of a root.
pub const ROOT_LIFETIME: Duration = Duration::days(3652);
/// Life of the authorities below it; a new one is due at half of it.
pub const INTERMEDIATE_LIFETIME: Duration = Duration::days(1826);

/// Why a certificate was not issued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IssueError {
    /// This authority may not sign for that name.
    #[error("the {authority} authority may not sign this")]
    NotMine {
        /// What the authority is for.
        authority: &'static str,
    },
    /// The authority is not valid at this time, or the lifetime is not positive.
    #[error("the certificate would have no time in which it is valid")]
    NoLifetime,
    /// Neither a DNS name (a first label may be `*`) nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// A server certificate needs a name.
    #[error("a server certificate needs at least one name")]
    NoServerName,
    /// No random serial number.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The key could not be made or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate could not be put together.
    #[error("the certificate could not be encoded: {0}")]
    Encode(String),
}

/// Why a stored authority was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The certificate cannot be read, or is not that of an authority.
    #[error("not the certificate of an authority")]
    NotAnAuthority,
    /// Its name is not that of an authority of this trust domain.
    #[error("the authority's name: {0}")]
    Name(#[from] NameError),
    /// The key belongs to another certificate.
    #[error("the key is not the key of the certificate")]
    KeyMismatch,
}

/// A certificate fresh from an authority.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate, then that of its issuer: what a peer needs beside the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Unique below the issuer.
    pub serial: Serial,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// Start of validity: [`BACKDATE`] before the time of issue.
    pub not_before: OffsetDateTime,
    /// End of validity; earlier than asked when the issuer ends before.
    pub not_after: OffsetDateTime,
}

/// A certificate of an authority, with its key.
#[derive(Debug)]
pub struct Authority {
    domain: TrustDomain,
    purpose: Purpose,
    certificate: CertificateDer<'static>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    key: KeyPair,
}

impl Authority {
    /// A new root for `domain`.
    pub fn root(domain: &TrustDomain, now: OffsetDateTime) -> Result<Self, IssueError> {
        let key = KeyPair::generate_root()?;
        let validity = Validity {
            not_before: whole_second(now - BACKDATE),
            not_after: whole_second(now + ROOT_LIFETIME),
        };
        let params = authority_params(domain, Purpose::Root, validity)?;
        let certificate = params.self_signed(key.signer()).map_err(encode_error)?;
        Ok(Self::assemble(domain, Purpose::Root, validity, certificate.der().clone(), key))
    }

    /// A new authority for `purpose`, signed by this root.
    pub fn intermediate(&self, purpose: Purpose, now: OffsetDateTime) -> Result<Self, IssueError> {
        if self.purpose != Purpose::Root || purpose == Purpose::Root {
            return Err(self.not_mine());
        }
        let key = KeyPair::generate()?;
        let validity = self.validity(now, INTERMEDIATE_LIFETIME)?;
        let params = authority_params(&self.domain, purpose, validity)?;
        let certificate = params.signed_by(key.signer(), &self.issuer()?).map_err(encode_error)?;
        Ok(Self::assemble(&self.domain, purpose, validity, certificate.der().clone(), key))
    }

    /// A certificate with which the holder of `key` proves to be `identity`:
    /// empty subject, the identity as only name, for TLS clients.
    pub fn issue_identity(
        &self,
        identity: Identity,
        key: &VerifiedKey,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
        if identity.issuer() != self.purpose {
            return Err(self.not_mine());
        }
        let uri = identity.uri(&self.domain).try_into().map_err(encode_error)?;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.issue_leaf(vec![SanType::URI(uri)], usage, key, self.validity(now, lifetime)?)
    }

    /// A certificate for a TLS server reachable under `names`: DNS names, whose
    /// first label may be `*`, and IP addresses.
    pub fn issue_server(
        &self,
        names: &[String],
        key: &VerifiedKey,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Issued, IssueError> {
        if self.purpose != Purpose::Servers {
            return Err(self.not_mine());
        }
        if names.is_empty() {
            return Err(IssueError::NoServerName);
        }
        let names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        self.issue_leaf(names, ExtendedKeyUsagePurpose::ServerAuth, key, self.validity(now, lifetime)?)
    }

    /// Brings a stored authority back; [`Self::certificate`] and [`Self::key`]
    /// are what to store.
    pub fn load(certificate: &[u8], key: KeyPair, domain: &TrustDomain) -> Result<Self, LoadError> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| LoadError::NotAnAuthority)?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(LoadError::NotAnAuthority);
        }
        if parsed.public_key().raw != key.spki() {
            return Err(LoadError::KeyMismatch);
        }
        let validity = Validity {
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        };
        let certificate = CertificateDer::from(certificate.to_vec());
        let purpose = name::purpose_of(&certificate, domain)?;
        Ok(Self::assemble(domain, purpose, validity, certificate, key))
    }

    /// Whose names this authority signs.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's key, to be sealed and stored.
    #[must_use]
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The pin of the authority's key; that of a root goes into join tokens.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.key.pin()
    }

    /// Start of the authority's validity.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// End of the authority's validity.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    fn assemble(
        domain: &TrustDomain,
        purpose: Purpose,
        validity: Validity,
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Self {
        let Validity { not_before, not_after } = validity;
        Self { domain: domain.clone(), purpose, certificate, not_before, not_after, key }
    }

    fn issue_leaf(
        &self,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        key: &VerifiedKey,
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        let serial = new_serial()?;
        let mut params = base_params(validity, &serial);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let signed = params.signed_by(key.certifiable(), &self.issuer()?).map_err(encode_error)?;
        let certificate = signed.der().clone();
        Ok(Issued {
            chain: vec![certificate.clone(), self.certificate.clone()],
            serial: Serial::from_bytes(&serial),
            fingerprint: Fingerprint::of(&certificate),
            not_before: validity.not_before,
            not_after: validity.not_after,
            certificate,
        })
    }

    fn validity(&self, now: OffsetDateTime, lifetime: Duration) -> Result<Validity, IssueError> {
        let not_before = whole_second(now - BACKDATE).max(self.not_before);
        let not_after = whole_second(now + lifetime).min(self.not_after);
        if lifetime.is_positive() && now >= self.not_before && now < not_after {
            Ok(Validity { not_before, not_after })
        } else {
            Err(IssueError::NoLifetime)
        }
    }

    fn issuer(&self) -> Result<Issuer<'static, &rcgen::KeyPair>, IssueError> {
        Issuer::from_ca_cert_der(&self.certificate, self.key.signer()).map_err(encode_error)
    }

    fn not_mine(&self) -> IssueError {
        IssueError::NotMine { authority: self.purpose.as_str() }
    }
}

#[derive(Clone, Copy)]
struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// A certificate knows whole seconds only; what we say of it must be what it says.
fn whole_second(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}

/// What every certificate has: a validity, a serial, an issuer's key identifier,
/// an empty subject.
fn base_params(validity: Validity, serial: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority_params(
    domain: &TrustDomain,
    purpose: Purpose,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let serial = new_serial()?;
    let mut params = base_params(validity, &serial);
    // Part of the serial makes the name unique: path builders match by name.
    let text = Serial::from_bytes(&serial).to_string();
    let common_name = format!("Culvert {} {}", purpose.as_str(), text.get(..8).unwrap_or_default());
    params.distinguished_name.push(DnType::OrganizationName, "Culvert");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let uri = purpose.uri(domain).try_into().map_err(encode_error)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(if purpose == Purpose::Root { 1 } else { 0 }));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = match purpose {
        Purpose::Root => Vec::new(),
        Purpose::Agents(_) | Purpose::People(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Purpose::Servers => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    Ok(params)
}

/// 127 random bits with the highest set: positive, never zero, always 16 bytes.
fn new_serial() -> Result<[u8; 16], NoRandomness> {
    let mut serial: [u8; 16] = random::bytes()?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

fn server_name(name: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || IssueError::ServerName(name.to_owned());
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).map_err(|_| wrong())?;
    name.try_into().map(SanType::DnsName).map_err(|_| wrong())
}

fn encode_error(error: rcgen::Error) -> IssueError {
    IssueError::Encode(error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::SignatureAlgorithm;
    use time::macros::datetime;
    use uuid::Uuid;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::csr;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00:00.5 UTC);
    const ORG: Uuid = Uuid::from_u128(7);
    const AGENT: Identity = Identity::Agent { org: ORG, agent: Uuid::from_u128(8) };

    fn domain() -> TrustDomain {
        "culvert.internal".parse().unwrap()
    }

    fn agents() -> (Authority, Authority) {
        let root = Authority::root(&domain(), NOW).unwrap();
        let agents = root.intermediate(Purpose::Agents(ORG), NOW).unwrap();
        (root, agents)
    }

    fn key() -> VerifiedKey {
        KeyPair::generate().unwrap().verified_key().unwrap()
    }

    fn parse(der: &[u8]) -> X509Certificate<'_> {
        X509Certificate::from_der(der).unwrap().1
    }

    fn path_length(certificate: &X509Certificate<'_>) -> Option<u32> {
        certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint
    }

    fn key_ids(certificate: &X509Certificate<'_>) -> (Vec<u8>, Vec<u8>) {
        let (mut subject, mut authority) = (Vec::new(), Vec::new());
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => subject = id.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().unwrap().0.to_vec();
                }
                _ => {}
            }
        }
        (subject, authority)
    }

    #[test]
    fn a_root_is_p384_and_ten_years() {
        let root = Authority::root(&domain(), NOW).unwrap();
        let parsed = parse(root.certificate());
        assert!(parsed.is_ca());
        assert_eq!(path_length(&parsed), Some(1));
        assert_eq!(root.key().spki().len(), 120, "the length of a P-384 key");
        assert_eq!(root.not_after(), datetime!(2036-11-22 12:00:00 UTC));
        assert_eq!(parsed.validity().not_after.to_datetime(), root.not_after());
        assert_eq!(parsed.validity().not_before.to_datetime(), datetime!(2026-11-23 11:55:00 UTC));
        assert_eq!(root.pin(), Pin::of_certificate(root.certificate()).unwrap());
        assert_eq!(name::purpose_of(root.certificate(), &domain()), Ok(Purpose::Root));
    }

    #[test]
    fn an_agents_authority_can_sign_clients_only() {
        let (root, agents) = agents();
        let parsed = parse(agents.certificate());
        assert_eq!(path_length(&parsed), Some(0));
        assert_eq!(name::purpose_of(agents.certificate(), &domain()), Ok(Purpose::Agents(ORG)));
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert_eq!(key_ids(&parsed).1, key_ids(&parse(root.certificate())).0);
        let refused = agents.issue_server(&["localhost".to_owned()], &key(), NOW, Duration::days(1));
        assert_eq!(refused.unwrap_err(), IssueError::NotMine { authority: "agents" });
        assert_eq!(
            agents.intermediate(Purpose::Servers, NOW).unwrap_err(),
            IssueError::NotMine { authority: "agents" }
        );
        assert!(root.intermediate(Purpose::Root, NOW).is_err());
    }

    #[test]
    fn an_identity_leaf_says_what_we_decided_and_nothing_else() {
        let (_, agents) = agents();
        let issued = agents.issue_identity(AGENT, &key(), NOW, Duration::days(1)).unwrap();
        let parsed = parse(&issued.certificate);
        assert_eq!(parsed.subject().iter().count(), 0);
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical, "with an empty subject the names must be critical");
        assert_eq!(names.value.general_names, [GeneralName::URI(&AGENT.uri(&domain()))]);
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let (subject, authority) = key_ids(&parsed);
        assert!(!subject.is_empty());
        assert_eq!(authority, key_ids(&parse(agents.certificate())).0);
        assert_eq!(issued.not_before, datetime!(2026-11-23 11:55:00 UTC));
        assert_eq!(issued.not_after, datetime!(2026-11-24 12:00:00 UTC));
        assert_eq!(parsed.validity().not_before.to_datetime(), issued.not_before);
        assert_eq!(parsed.validity().not_after.to_datetime(), issued.not_after);
        assert_eq!(issued.serial, Serial::from_bytes(parsed.raw_serial()));
        assert_eq!(issued.chain, [issued.certificate.clone(), agents.certificate().clone()]);
    }

    #[test]
    fn a_request_for_a_ca_of_another_org_still_gives_a_plain_leaf() {
        let (_, agents) = agents();
        let pair = KeyPair::generate().unwrap();
        let mut wishes = CertificateParams::new(["evil.example".to_owned()]).unwrap();
        wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let other = Identity::Agent { org: Uuid::from_u128(9), agent: Uuid::from_u128(9) };
        wishes.subject_alt_names.push(SanType::URI(other.uri(&domain()).try_into().unwrap()));
        wishes.distinguished_name.push(DnType::CommonName, "admin");
        let request = wishes.serialize_request(pair.signer()).unwrap();

        let key = csr::public_key(request.der()).unwrap();
        let issued = agents.issue_identity(AGENT, &key, NOW, Duration::days(1)).unwrap();
        let parsed = parse(&issued.certificate);
        assert_eq!(name::identity_of(&issued.certificate, &domain()), Ok(AGENT));
        assert_eq!(parsed.public_key().raw, pair.spki());
        assert!(!parsed.is_ca());
        assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert_eq!(parsed.subject().iter().count(), 0);
    }

    #[test]
    fn an_authority_signs_for_its_own_names_only() {
        let (root, agents) = agents();
        let people = root.intermediate(Purpose::People(ORG), NOW).unwrap();
        let servers = root.intermediate(Purpose::Servers, NOW).unwrap();
        let foreign = Identity::Agent { org: Uuid::from_u128(9), agent: Uuid::from_u128(8) };
        let user = Identity::User { org: ORG, user: Uuid::from_u128(1) };
        let replica = Identity::Replica { replica: Uuid::from_u128(1) };
        let may = |authority: &Authority, identity| {
            authority.issue_identity(identity, &key(), NOW, Duration::hours(1)).is_ok()
        };
        for (authority, allowed) in [(&agents, AGENT), (&people, user), (&servers, replica)] {
            for identity in [AGENT, user, replica, foreign] {
                assert_eq!(may(authority, identity), identity == allowed, "{authority:?} {identity:?}");
                assert!(!may(&root, identity));
            }
        }
    }

    #[test]
    fn server_names_are_dns_names_wildcards_and_addresses() {
        let (root, _) = agents();
        let servers = root.intermediate(Purpose::Servers, NOW).unwrap();
        let issue = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            servers.issue_server(&names, &key(), NOW, Duration::days(30))
        };
        let issued =
            issue(&["agents.culvert.internal", "*.agents.culvert.internal", "127.0.0.1", "::1"]).unwrap();
        let parsed = parse(&issued.certificate);
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
        assert_eq!(issue(&[]).unwrap_err(), IssueError::NoServerName);
        for bad in ["", "*", "*.", "a b", "a.*.b", "https://x", "*.*.b"] {
            assert_eq!(issue(&[bad]).unwrap_err(), IssueError::ServerName(bad.to_owned()));
        }
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer() {
        let (_, agents) = agents();
        let late = agents.not_after() - Duration::hours(1);
        let issued = agents.issue_identity(AGENT, &key(), late, Duration::days(1)).unwrap();
        assert_eq!(issued.not_after, agents.not_after());
        for (now, lifetime) in [
            (agents.not_after(), Duration::days(1)),
            (agents.not_before() - Duration::seconds(1), Duration::days(1)),
            (NOW, Duration::ZERO),
            (NOW, -Duration::days(1)),
        ] {
            let refused = agents.issue_identity(AGENT, &key(), now, lifetime);
            assert_eq!(refused.unwrap_err(), IssueError::NoLifetime, "{now} {lifetime}");
        }
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let serials: Vec<[u8; 16]> = (0..100).map(|_| new_serial().unwrap()).collect();
        assert!(serials.iter().all(|serial| serial[0] & 0x80 == 0 && serial[0] != 0));
        let distinct: std::collections::HashSet<_> = serials.iter().collect();
        assert_eq!(distinct.len(), serials.len());
    }

    #[test]
    fn an_authority_survives_storage() {
        let (root, agents) = agents();
        for authority in [root, agents] {
            let key = KeyPair::from_pkcs8(&authority.key().to_pkcs8()).unwrap();
            let loaded = Authority::load(authority.certificate(), key, &domain()).unwrap();
            assert_eq!(loaded.purpose(), authority.purpose());
            assert_eq!(loaded.not_after(), authority.not_after());
            assert_eq!(loaded.not_before(), authority.not_before());
        }
    }

    #[test]
    fn a_stored_authority_that_does_not_fit_is_refused() {
        let (root, agents) = agents();
        let copy = |authority: &Authority| KeyPair::from_pkcs8(&authority.key().to_pkcs8()).unwrap();
        let load =
            |der: &[u8], key, domain: &str| Authority::load(der, key, &domain.parse().unwrap()).unwrap_err();
        let here = "culvert.internal";
        assert_eq!(load(root.certificate(), copy(&agents), here), LoadError::KeyMismatch);
        assert_eq!(
            load(root.certificate(), copy(&root), "culvert.example"),
            LoadError::Name(NameError::ForeignDomain)
        );
        assert_eq!(load(b"x", copy(&root), here), LoadError::NotAnAuthority);
        let pair = KeyPair::generate().unwrap();
        let key = pair.verified_key().unwrap();
        let leaf = agents.issue_identity(AGENT, &key, NOW, Duration::days(1)).unwrap();
        assert_eq!(load(&leaf.certificate, pair, here), LoadError::NotAnAuthority);
    }

    #[test]
    fn every_kind_of_certified_key_gets_a_certificate() {
        let (_, agents) = agents();
        let kinds: [&'static SignatureAlgorithm; 3] =
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        for kind in kinds {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let request = CertificateParams::default().serialize_request(&pair).unwrap();
            let key = csr::public_key(request.der()).unwrap();
            let issued = agents.issue_identity(AGENT, &key, NOW, Duration::days(1)).unwrap();
            assert_eq!(parse(&issued.certificate).public_key().raw, key.spki());
        }
    }
}
