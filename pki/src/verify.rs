//! Whether a peer is who its certificate says: the whole chain, the purpose, and
//! that the authority which signed was the one allowed to.
//!
//! A chain that leads to our root is not enough: every organisation has its own
//! authority below the same root. The authority's certificate carries a URI name
//! of its own ([`Purpose`]), put there under the root's signature, and the leaf's
//! identity must be one that exactly this authority may sign. Whether the
//! identity is still registered, locked or revoked is the store's to say.

use std::fmt;

use data_encoding::HEXLOWER;
use rustls::RootCertStore;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::{self, Identity, NameError, Purpose, TrustDomain};
use crate::pin::{Pin, PinError};

/// Certificates a peer may send; ours are two or three.
const MAX_CHAIN: usize = 8;

/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2, as DER content octets.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Why a peer's certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// More certificates than any of our peers has reason to send.
    #[error("{0} certificates were presented, and {MAX_CHAIN} are allowed")]
    ChainTooLong(usize),
    /// A certificate cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The certificate's time is over.
    #[error("the certificate expired at {not_after} and it is {now}")]
    Expired {
        /// End of validity.
        not_after: OffsetDateTime,
        /// Time of the check.
        now: OffsetDateTime,
    },
    /// The certificate's time has not come.
    #[error("the certificate is valid from {not_before} and it is {now}")]
    NotYetValid {
        /// Start of validity.
        not_before: OffsetDateTime,
        /// Time of the check.
        now: OffsetDateTime,
    },
    /// No path of valid signatures leads to a root that is trusted here.
    #[error("the certificate does not lead to a trusted root: {0}")]
    Untrusted(String),
    /// Not made for a TLS client.
    #[error("the certificate is not for a client")]
    WrongUse,
    /// The leaf or its issuer has no name we give.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Signed by an authority that may not sign for this identity, such as that
    /// of another organisation.
    #[error("the authority that signed may not sign for this identity")]
    WrongIssuer {
        /// Who the leaf says it is.
        identity: Identity,
        /// What the authority is for.
        issuer: Purpose,
    },
}

/// Why a set of roots was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// With no root nothing could be trusted.
    #[error("no root certificate was given")]
    Empty,
    /// A root cannot be read.
    #[error("a root certificate cannot be read")]
    Malformed,
}

/// Root certificates that are trusted: one, or two while a root is replaced.
#[derive(Debug, Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

impl Roots {
    /// Takes at least one root certificate.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, RootsError> {
        let certificates: Vec<_> = roots.into_iter().collect();
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|_| RootsError::Malformed)?;
        }
        if certificates.is_empty() { Err(RootsError::Empty) } else { Ok(Self { certificates, store }) }
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The pins of the roots' keys.
    pub fn pins(&self) -> Result<Vec<Pin>, PinError> {
        self.certificates.iter().map(Pin::of_certificate).collect()
    }

    pub(crate) fn store(&self) -> &RootCertStore {
        &self.store
    }
}

/// Serial number of a certificate, as lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial(String);

impl Serial {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(HEXLOWER.encode(bytes))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a whole certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A peer that proved its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// The organisation, by the authority that signed; none for replicas.
    pub org: Option<uuid::Uuid>,
    /// Start of the certificate's validity.
    pub not_before: OffsetDateTime,
    /// End of the certificate's validity.
    pub not_after: OffsetDateTime,
    /// The certificate's serial number.
    pub serial: Serial,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// The pin of the certificate's key.
    pub key: Pin,
}

/// Checks the chain a peer presented, leaf first, at the time `now`.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Peer, PeerError> {
    let (leaf, issuers) = chain.split_first().ok_or(PeerError::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(PeerError::ChainTooLong(chain.len()));
    }
    let parsed = parse(leaf)?;
    let purpose = verified_issuer(leaf, issuers, roots, domain, now)?;
    peer(leaf, &parsed, purpose, domain)
}

/// As [`verify_peer`], but the leaf's time may be over: its chain is judged as
/// of the last second in which the leaf was valid. For an agent that comes back
/// after it expired; `issuers` are the controller's own authorities.
pub fn verify_lapsed(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Peer, PeerError> {
    let parsed = parse(leaf)?;
    let at = now.min(parsed.validity().not_after.to_datetime());
    let purpose = verified_issuer(leaf, issuers, roots, domain, at)?;
    peer(leaf, &parsed, purpose, domain)
}

/// What the authority that signed `leaf` is for, once every signature up to a
/// root holds.
fn verified_issuer(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    roots: &Roots,
    domain: &TrustDomain,
    now: OffsetDateTime,
) -> Result<Purpose, PeerError> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| PeerError::Malformed)?;
    let path = end_entity
        .verify_for_usage(
            algorithms().all,
            &roots.store.roots,
            issuers,
            unix(now),
            // Required, not only if present: a leaf that names no use has none.
            KeyUsage::required(CLIENT_AUTH),
            None,
            None,
        )
        .map_err(|error| refused(error, now))?;
    let issuer = path.intermediate_certificates().next();
    match issuer {
        Some(issuer) => Ok(name::purpose_of(&issuer.der(), domain)?),
        // A root signs authorities only.
        None => Err(PeerError::Untrusted("signed by a root directly".to_owned())),
    }
}

fn peer(
    leaf: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    issuer: Purpose,
    domain: &TrustDomain,
) -> Result<Peer, PeerError> {
    let identity = name::identity_of(leaf, domain)?;
    if identity.issuer() != issuer {
        return Err(PeerError::WrongIssuer { identity, issuer });
    }
    Ok(Peer {
        identity,
        org: identity.org(),
        not_before: parsed.validity().not_before.to_datetime(),
        not_after: parsed.validity().not_after.to_datetime(),
        serial: Serial::from_bytes(parsed.raw_serial()),
        fingerprint: Fingerprint::of(leaf),
        key: Pin::of_spki(parsed.public_key().raw),
    })
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, PeerError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(PeerError::Malformed),
    }
}

fn refused(error: webpki::Error, now: OffsetDateTime) -> PeerError {
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            PeerError::Expired { not_after: from_unix(not_after), now }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            PeerError::NotYetValid { not_before: from_unix(not_before), now }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => PeerError::WrongUse,
        other => PeerError::Untrusted(format!("{other:?}")),
    }
}

/// The signature algorithms of certificates and handshakes.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

/// A time before 1970 counts as 1970.
pub(crate) fn unix(time: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// A time beyond the year 9999 counts as the epoch; no certificate has one.
pub(crate) fn from_unix(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
    use time::Duration;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::authority::{Authority, Issued};
    use crate::forge;
    use crate::key::{KeyPair, VerifiedKey};

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
    const ORG_A: Uuid = Uuid::from_u128(0xa);
    const ORG_B: Uuid = Uuid::from_u128(0xb);
    const AGENT: Identity = Identity::Agent { org: ORG_A, agent: Uuid::from_u128(1) };

    struct World {
        domain: TrustDomain,
        root: Authority,
        agents: Authority,
        roots: Roots,
    }

    fn world_in(domain: &str) -> World {
        let domain: TrustDomain = domain.parse().unwrap();
        let root = Authority::root(&domain, NOW).unwrap();
        let agents = root.intermediate(Purpose::Agents(ORG_A), NOW).unwrap();
        let roots = Roots::new([root.certificate().clone()]).unwrap();
        World { domain, root, agents, roots }
    }

    fn world() -> World {
        world_in("culvert.internal")
    }

    fn key() -> VerifiedKey {
        KeyPair::generate().unwrap().verified_key().unwrap()
    }

    impl World {
        fn agent(&self) -> Issued {
            self.agents.issue_identity(AGENT, &key(), NOW, Duration::days(1)).unwrap()
        }

        fn check(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
            verify_peer(chain, &self.roots, &self.domain, NOW)
        }

        /// A leaf with these URIs, signed by `issuer` whatever they say.
        fn forged(&self, uris: &[String], issuer: &Authority) -> Vec<CertificateDer<'static>> {
            let params = forge::client_params(uris, NOW);
            let leaf = forge::sign(&params, &key(), issuer.certificate(), issuer.key());
            vec![leaf, issuer.certificate().clone()]
        }
    }

    #[test]
    fn a_peer_is_who_its_certificate_says() {
        let world = world();
        let key = key();
        let issued = world.agents.issue_identity(AGENT, &key, NOW, Duration::days(1)).unwrap();
        let peer = world.check(&issued.chain).unwrap();
        assert_eq!(peer.identity, AGENT);
        assert_eq!(peer.org, Some(ORG_A));
        assert_eq!((peer.not_before, peer.not_after), (issued.not_before, issued.not_after));
        assert_eq!((peer.serial, peer.fingerprint), (issued.serial, issued.fingerprint));
        assert_eq!(peer.key, key.pin());
    }

    #[test]
    fn a_name_of_another_org_is_refused_though_the_chain_holds() {
        let world = world();
        let stranger = Identity::Agent { org: ORG_B, agent: Uuid::from_u128(1) };
        let chain = world.forged(&[stranger.uri(&world.domain)], &world.agents);
        let refused = PeerError::WrongIssuer { identity: stranger, issuer: Purpose::Agents(ORG_A) };
        assert_eq!(world.check(&chain), Err(refused));
        // The same forgery with the authority's own org passes: nothing else was wrong with it.
        assert!(world.check(&world.forged(&[AGENT.uri(&world.domain)], &world.agents)).is_ok());
    }

    #[test]
    fn the_presence_of_another_authority_in_the_chain_changes_nothing() {
        let world = world();
        let other = world.root.intermediate(Purpose::Agents(ORG_B), NOW).unwrap();
        let stranger = Identity::Agent { org: ORG_B, agent: Uuid::from_u128(1) };
        let mut chain = world.forged(&[stranger.uri(&world.domain)], &world.agents);
        chain.insert(1, other.certificate().clone());
        assert!(matches!(world.check(&chain), Err(PeerError::WrongIssuer { .. })));
    }

    #[test]
    fn people_servers_and_agents_do_not_sign_for_each_other() {
        let world = world();
        let identities = [
            AGENT,
            Identity::User { org: ORG_A, user: Uuid::from_u128(1) },
            Identity::Replica { replica: Uuid::from_u128(1) },
        ];
        for purpose in [Purpose::Agents(ORG_A), Purpose::People(ORG_A), Purpose::Servers] {
            let authority = world.root.intermediate(purpose, NOW).unwrap();
            for identity in identities {
                let chain = world.forged(&[identity.uri(&world.domain)], &authority);
                let allowed = identity.issuer() == purpose;
                assert_eq!(world.check(&chain).is_ok(), allowed, "{purpose:?} {identity:?}");
            }
        }
    }

    #[test]
    fn another_root_is_not_trusted() {
        let (here, elsewhere) = (world(), world());
        let chain = elsewhere.agent().chain;
        assert!(matches!(here.check(&chain), Err(PeerError::Untrusted(_))));
        let both =
            Roots::new([here.root.certificate().clone(), elsewhere.root.certificate().clone()]).unwrap();
        assert!(
            verify_peer(&chain, &both, &here.domain, NOW).is_ok(),
            "while a root is replaced, both count"
        );
    }

    #[test]
    fn another_trust_domain_is_refused_even_below_our_root() {
        let world = world();
        let foreign: TrustDomain = "culvert.example".parse().unwrap();
        let refused = verify_peer(&world.agent().chain, &world.roots, &foreign, NOW);
        assert_eq!(refused, Err(PeerError::Name(NameError::ForeignDomain)));
        let chain = world.forged(&[AGENT.uri(&foreign)], &world.agents);
        assert_eq!(world.check(&chain), Err(PeerError::Name(NameError::ForeignDomain)));
    }

    #[test]
    fn time_is_judged_to_the_second() {
        let world = world();
        let issued = world.agent();
        let at = |now| verify_peer(&issued.chain, &world.roots, &world.domain, now);
        assert!(at(issued.not_before).is_ok());
        assert!(at(issued.not_after).is_ok());
        let (not_before, not_after) = (issued.not_before, issued.not_after);
        let now = not_before - Duration::seconds(1);
        assert_eq!(at(now), Err(PeerError::NotYetValid { not_before: world.agents.not_before(), now }));
        let now = not_after + Duration::seconds(1);
        assert_eq!(at(now), Err(PeerError::Expired { not_after, now }));
    }

    #[test]
    fn a_lapsed_leaf_is_judged_as_of_its_end_and_in_all_else_as_ever() {
        let world = world();
        let issued = world.agent();
        let issuers = [world.agents.certificate().clone()];
        let later = NOW + Duration::days(40);
        let lapsed =
            |leaf: &CertificateDer<'_>| verify_lapsed(leaf, &issuers, &world.roots, &world.domain, later);
        assert_eq!(lapsed(&issued.certificate).unwrap().identity, AGENT);
        let before = verify_lapsed(
            &issued.certificate,
            &issuers,
            &world.roots,
            &world.domain,
            NOW - Duration::days(1),
        );
        assert!(matches!(before, Err(PeerError::NotYetValid { .. })));
        let stranger = Identity::Agent { org: ORG_B, agent: Uuid::from_u128(1) };
        let forged = world.forged(&[stranger.uri(&world.domain)], &world.agents);
        assert!(matches!(lapsed(&forged[0]), Err(PeerError::WrongIssuer { .. })));
        assert!(matches!(
            lapsed(&world_in("culvert.internal").agent().certificate),
            Err(PeerError::Untrusted(_))
        ));
    }

    #[test]
    fn a_leaf_must_be_for_clients() {
        let world = world();
        let servers = world.root.intermediate(Purpose::Servers, NOW).unwrap();
        let server = servers.issue_server(&["localhost".to_owned()], &key(), NOW, Duration::days(1)).unwrap();
        assert_eq!(world.check(&server.chain), Err(PeerError::WrongUse));
        for usage in [vec![], vec![ExtendedKeyUsagePurpose::CodeSigning]] {
            let mut params = forge::client_params(&[AGENT.uri(&world.domain)], NOW);
            params.extended_key_usages = usage;
            let leaf = forge::sign(&params, &key(), world.agents.certificate(), world.agents.key());
            let refused = world.check(&[leaf, world.agents.certificate().clone()]);
            assert_eq!(refused, Err(PeerError::WrongUse));
        }
    }

    #[test]
    fn a_leaf_has_exactly_one_uri() {
        let world = world();
        let uri = AGENT.uri(&world.domain);
        for uris in [vec![], vec![uri.clone(), uri.clone()]] {
            let refused = world.check(&world.forged(&uris, &world.agents));
            assert_eq!(refused, Err(PeerError::Name(NameError::NotOneUri)));
        }
        let mut params = forge::client_params(&[uri], NOW);
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        let leaf = forge::sign(&params, &key(), world.agents.certificate(), world.agents.key());
        let refused = world.check(&[leaf, world.agents.certificate().clone()]);
        assert_eq!(refused, Err(PeerError::Name(NameError::NotOneUri)));
    }

    #[test]
    fn an_authority_cannot_make_authorities() {
        let world = world();
        let pair = KeyPair::generate().unwrap();
        let mut params = forge::client_params(&[Purpose::Agents(ORG_B).uri(&world.domain)], NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "sub");
        let sub = forge::sign(
            &params,
            &pair.verified_key().unwrap(),
            world.agents.certificate(),
            world.agents.key(),
        );
        let stranger = Identity::Agent { org: ORG_B, agent: Uuid::from_u128(1) };
        let leaf =
            forge::sign(&forge::client_params(&[stranger.uri(&world.domain)], NOW), &key(), &sub, &pair);
        let refused = world.check(&[leaf, sub, world.agents.certificate().clone()]);
        assert!(matches!(refused, Err(PeerError::Untrusted(_))), "{refused:?}");
    }

    #[test]
    fn a_leaf_signed_by_the_root_itself_is_refused() {
        let world = world();
        let chain = world.forged(&[AGENT.uri(&world.domain)], &world.root);
        assert!(matches!(world.check(&chain), Err(PeerError::Untrusted(_))));
    }

    #[test]
    fn a_leaf_does_not_sign() {
        let world = world();
        let pair = KeyPair::generate().unwrap();
        let first = world
            .agents
            .issue_identity(AGENT, &pair.verified_key().unwrap(), NOW, Duration::days(1))
            .unwrap();
        let other = Identity::Agent { org: ORG_A, agent: Uuid::from_u128(2) };
        let second = forge::sign(
            &forge::client_params(&[other.uri(&world.domain)], NOW),
            &key(),
            &first.certificate,
            &pair,
        );
        let refused = world.check(&[second, first.certificate, world.agents.certificate().clone()]);
        assert!(matches!(refused, Err(PeerError::Untrusted(_))), "{refused:?}");
    }

    #[test]
    fn chains_that_are_empty_short_or_long_are_refused() {
        let world = world();
        let issued = world.agent();
        assert_eq!(world.check(&[]), Err(PeerError::NoCertificate));
        assert!(matches!(world.check(&issued.chain[..1]), Err(PeerError::Untrusted(_))));
        let long = vec![issued.certificate; 9];
        assert_eq!(world.check(&long), Err(PeerError::ChainTooLong(9)));
        assert!(matches!(Roots::new([]), Err(RootsError::Empty)));
        assert!(matches!(Roots::new([CertificateDer::from(vec![1, 2])]), Err(RootsError::Malformed)));
    }

    proptest! {
        #[test]
        fn garbage_and_flipped_bits_are_refused_calmly(
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
            at in any::<usize>(),
            bit in 0..8_u32,
        ) {
            let world = world();
            let intermediate = world.agents.certificate().clone();
            prop_assert!(world.check(&[CertificateDer::from(bytes), intermediate.clone()]).is_err());
            let mut leaf = world.agent().certificate.to_vec();
            let at = at % leaf.len();
            leaf[at] ^= 1 << bit;
            prop_assert!(world.check(&[CertificateDer::from(leaf), intermediate]).is_err());
        }
    }
}
