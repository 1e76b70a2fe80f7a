//! Whole TLS handshakes, in memory: who gets in, who does not, and what each
//! side learns of why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy's leave for tests does not reach the functions that tests share"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use culvert_pki::authority::Authority;
use culvert_pki::key::KeyPair;
use culvert_pki::name::{Identity, Purpose, TrustDomain};
use culvert_pki::pin::Pin;
use culvert_pki::rejoin::{Statement, channel_binding};
use culvert_pki::tls::{
    AcceptFailure, ClientAuth, ClientIdentity, TimeProvider, TlsFailure, classify_accept_error,
    pinned_client, server_config, trusted_client,
};
use culvert_pki::token::JoinToken;
use culvert_pki::verify::{PeerError, Roots, verify_peer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
const ORG: Uuid = Uuid::from_u128(1);
const AGENT: Identity = Identity::Agent { org: ORG, agent: Uuid::from_u128(2) };
const AGENTS: &str = "agents.culvert.internal";

/// A clock that stands still until a test moves it.
#[derive(Debug)]
struct Hand(AtomicI64);

impl Hand {
    fn at(time: OffsetDateTime) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(time.unix_timestamp())))
    }

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(by.whole_seconds(), Ordering::SeqCst);
    }
}

impl TimeProvider for Hand {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.load(Ordering::SeqCst)).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// A controller: its authorities, and the certificate of its agents' door.
struct Controller {
    domain: TrustDomain,
    root: Authority,
    agents: Authority,
    roots: Roots,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Controller {
    fn new() -> Self {
        let domain: TrustDomain = "culvert.internal".parse().unwrap();
        let root = Authority::root(&domain, NOW).unwrap();
        let agents = root.intermediate(Purpose::Agents(ORG), NOW).unwrap();
        let servers = root.intermediate(Purpose::Servers, NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = [AGENTS.to_owned(), format!("*.{AGENTS}")];
        let issued =
            servers.issue_server(&names, &key.verified_key().unwrap(), NOW, Duration::days(30)).unwrap();
        let mut chain = issued.chain;
        chain.push(root.certificate().clone());
        let roots = Roots::new([root.certificate().clone()]).unwrap();
        Self { domain, root, agents, roots, chain, key }
    }

    fn agents_door(&self, clock: Arc<Hand>) -> ServerConfig {
        let auth = ClientAuth::Optional(&self.roots);
        server_config(self.chain.clone(), &self.key, auth, &[b"h2"], clock).unwrap()
    }

    fn enrolled(&self, lifetime: Duration) -> Enrolled {
        let key = KeyPair::generate().unwrap();
        let issued = self.agents.issue_identity(AGENT, &key.verified_key().unwrap(), NOW, lifetime).unwrap();
        Enrolled { key, chain: issued.chain }
    }

    fn pinned(&self, clock: Arc<Hand>) -> ClientConfig {
        pinned_client(&[self.root.pin()], &[b"h2"], clock).unwrap()
    }
}

struct Enrolled {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl Enrolled {
    fn client(&self, roots: &Roots, clock: Arc<Hand>) -> ClientConfig {
        let identity = ClientIdentity { chain: &self.chain, key: &self.key };
        trusted_client(roots, Some(identity), &[b"h2"], clock).unwrap()
    }
}

/// Both ends after they have said all they had to say.
struct Outcome {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<io::Error>,
    server_error: Option<io::Error>,
}

impl Outcome {
    fn both_done(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }

    #[track_caller]
    fn client_failure(&self) -> TlsFailure {
        TlsFailure::find(self.client_error.as_ref().expect("the client goes on")).expect("no TLS failure")
    }

    #[track_caller]
    fn accept_failure(&self) -> AcceptFailure {
        classify_accept_error(self.server_error.as_ref().expect("the server goes on"))
    }
}

/// Moves bytes from one end to the other as a network would, alerts included.
/// An error becomes an [`io::Error`], as tokio-rustls makes it one.
fn carry<A, B>(
    from: &mut rustls::ConnectionCommon<A>,
    to: &mut rustls::ConnectionCommon<B>,
    failed: &mut Option<io::Error>,
) -> bool
where
    A: rustls::SideData,
    B: rustls::SideData,
{
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut unread = wire.as_slice();
    while !unread.is_empty() && failed.is_none() {
        to.read_tls(&mut unread).unwrap();
        if let Err(error) = to.process_new_packets() {
            *failed = Some(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    !wire.is_empty()
}

fn handshake_as(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Outcome {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let up = carry(&mut client, &mut server, &mut server_error);
        let down = carry(&mut server, &mut client, &mut client_error);
        if !up && !down {
            return Outcome { client, server, client_error, server_error };
        }
    }
}

fn handshake(client: ClientConfig, server: ServerConfig) -> Outcome {
    handshake_as(&Arc::new(client), &Arc::new(server), AGENTS)
}

#[test]
fn an_agent_without_a_certificate_is_let_in_by_pin() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let outcome = handshake(controller.pinned(clock.clone()), controller.agents_door(clock));
    assert!(outcome.both_done());
    assert_eq!(outcome.client.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(outcome.server.peer_certificates(), None);
    assert_eq!(outcome.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn a_token_id_as_server_name_reaches_the_same_door() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let token = JoinToken::generate(controller.root.pin(), None).unwrap();
    let name = controller.domain.enrolment_server_name(&token.id());
    let client = Arc::new(pinned_client(&token.pins(), &[b"h2"], clock.clone()).unwrap());
    let outcome = handshake_as(&client, &Arc::new(controller.agents_door(clock)), &name);
    assert!(outcome.both_done());
    let heard = outcome.server.server_name().unwrap();
    assert_eq!(controller.domain.token_id_of(heard), Some(token.id()));
}

#[test]
fn the_next_pin_counts_as_well() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let pins = [Pin::of_spki(b"the root that goes"), controller.root.pin()];
    let client = pinned_client(&pins, &[b"h2"], clock.clone()).unwrap();
    assert!(handshake(client, controller.agents_door(clock)).both_done());
}

#[test]
fn mutual_tls_proves_both_ends() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let client = controller.enrolled(Duration::days(1)).client(&controller.roots, clock.clone());
    let outcome = handshake(client, controller.agents_door(clock));
    assert!(outcome.both_done());
    let chain = outcome.server.peer_certificates().unwrap();
    let peer = verify_peer(chain, &controller.roots, &controller.domain, NOW).unwrap();
    assert_eq!((peer.identity, peer.org), (AGENT, Some(ORG)));
}

#[test]
fn a_certificate_of_another_controller_is_refused() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let rogue = Controller::new().enrolled(Duration::days(1));
    let outcome = handshake(rogue.client(&controller.roots, clock.clone()), controller.agents_door(clock));
    assert!(matches!(outcome.accept_failure(), AcceptFailure::UntrustedClientCertificate { .. }));
    assert!(matches!(outcome.client_failure(), TlsFailure::Refused { .. }));
}

#[test]
fn a_server_certificate_does_not_serve_as_a_clients() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let identity = ClientIdentity { chain: &controller.chain, key: &controller.key };
    let client = trusted_client(&controller.roots, Some(identity), &[b"h2"], clock.clone()).unwrap();
    let outcome = handshake(client, controller.agents_door(clock));
    assert!(matches!(outcome.accept_failure(), AcceptFailure::UntrustedClientCertificate { .. }));
}

#[test]
fn another_root_key_is_a_wrong_pin_to_both_ends() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let wrong = TlsFailure::WrongPin { presented: controller.root.pin() };
    let pinned = Controller::new().pinned(clock.clone());
    let other_roots = Controller::new().roots;
    let trusting = trusted_client(&other_roots, None, &[b"h2"], clock.clone()).unwrap();
    for client in [pinned, trusting] {
        let outcome = handshake(client, controller.agents_door(clock.clone()));
        assert_eq!(outcome.client_failure(), wrong);
        assert_eq!(outcome.accept_failure(), AcceptFailure::ClientPinMismatch);
    }
}

/// A server between client and controller: a root with any name that signs a
/// leaf for the controller's name.
fn interceptor(
    subject: &[(DnType, &str)],
    append: &[CertificateDer<'static>],
    clock: Arc<Hand>,
) -> ServerConfig {
    let mut root = CertificateParams::default();
    root.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, text) in subject {
        root.distinguished_name.push(kind.clone(), *text);
    }
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = rcgen::KeyPair::generate().unwrap();
    let root_certificate = root.self_signed(&root_key).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf_pair = rcgen::KeyPair::try_from(leaf_key.to_pkcs8().as_slice()).unwrap();
    let leaf = CertificateParams::new([AGENTS.to_owned()])
        .unwrap()
        .signed_by(&leaf_pair, &Issuer::from_params(&root, &root_key))
        .unwrap();
    let mut chain = vec![leaf.der().clone(), root_certificate.der().clone()];
    chain.extend_from_slice(append);
    server_config(chain, &leaf_key, ClientAuth::None, &[b"h2"], clock).unwrap()
}

#[test]
fn who_intercepts_is_named_to_pinned_and_trusting_clients() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let named = [(DnType::CommonName, "Inspection CA"), (DnType::OrganizationName, "Example\nNetworks")];
    let expected = TlsFailure::Intercepted { issuer: "Inspection CA (ExampleNetworks)".to_owned() };
    let trusting = trusted_client(&controller.roots, None, &[b"h2"], clock.clone()).unwrap();
    for client in [controller.pinned(clock.clone()), trusting] {
        let outcome = handshake(client, interceptor(&named, &[], clock.clone()));
        assert_eq!(outcome.client_failure(), expected);
    }
    let nameless = handshake(controller.pinned(clock.clone()), interceptor(&[], &[], clock));
    let expected = TlsFailure::Intercepted { issuer: "an issuer without a name".to_owned() };
    assert_eq!(nameless.client_failure(), expected);
}

#[test]
fn showing_the_right_root_beside_a_foreign_leaf_does_not_help() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let root = [controller.root.certificate().clone()];
    let trusting = trusted_client(&controller.roots, None, &[b"h2"], clock.clone()).unwrap();
    for (name, organisation) in [("Inspection CA", "Example"), ("Culvert servers", "Culvert")] {
        let subject = [(DnType::CommonName, name), (DnType::OrganizationName, organisation)];
        for client in [controller.pinned(clock.clone()), trusting.clone()] {
            let outcome = handshake(client, interceptor(&subject, &root, clock.clone()));
            let expected = TlsFailure::Intercepted { issuer: format!("{name} ({organisation})") };
            assert_eq!(outcome.client_failure(), expected);
        }
    }
}

#[test]
fn a_leaf_that_borrows_the_name_of_the_right_issuer_is_refused() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    // The issuer's name and the certificates are the controller's; only the signature is not.
    let forger_key = rcgen::KeyPair::generate().unwrap();
    let forger = Issuer::from_ca_cert_der(&controller.chain[1], forger_key).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf_pair = rcgen::KeyPair::try_from(leaf_key.to_pkcs8().as_slice()).unwrap();
    let leaf = CertificateParams::new([AGENTS.to_owned()]).unwrap().signed_by(&leaf_pair, &forger).unwrap();
    let mut chain = controller.chain.clone();
    chain[0] = leaf.der().clone();
    let server = server_config(chain, &leaf_key, ClientAuth::None, &[b"h2"], clock.clone()).unwrap();
    let outcome = handshake(controller.pinned(clock), server);
    assert!(matches!(outcome.client_failure(), TlsFailure::Intercepted { .. }));
}

/// Signs a leaf for the agents' door with `authority`, whatever it is for.
fn posing_as_server(authority: &Authority, root: &Authority, clock: Arc<Hand>) -> ServerConfig {
    let signer = rcgen::KeyPair::try_from(authority.key().to_pkcs8().as_slice()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.certificate(), signer).unwrap();
    let key = KeyPair::generate().unwrap();
    let pair = rcgen::KeyPair::try_from(key.to_pkcs8().as_slice()).unwrap();
    let mut params = CertificateParams::new([AGENTS.to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&pair, &issuer).unwrap().der().clone();
    let chain = vec![leaf, authority.certificate().clone(), root.certificate().clone()];
    server_config(chain, &key, ClientAuth::None, &[b"h2"], clock).unwrap()
}

#[test]
fn an_authority_for_agents_cannot_make_servers() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let rogue = posing_as_server(&controller.agents, &controller.root, clock.clone());
    let outcome = handshake(controller.pinned(clock.clone()), rogue);
    assert!(matches!(outcome.client_failure(), TlsFailure::BadCertificate(_)));
    // By an authority for servers the same leaf passes, so it was the authority that failed.
    let servers = controller.root.intermediate(Purpose::Servers, NOW).unwrap();
    let honest = posing_as_server(&servers, &controller.root, clock.clone());
    assert!(handshake(controller.pinned(clock), honest).both_done());
}

#[test]
fn a_clock_that_is_off_is_told_by_its_direction() {
    let controller = Controller::new();
    let door = || controller.agents_door(Hand::at(NOW));
    let slow = NOW - Duration::hours(2);
    let outcome = handshake(controller.pinned(Hand::at(slow)), door());
    let not_before = NOW - Duration::minutes(5);
    assert_eq!(outcome.client_failure(), TlsFailure::NotYetValid { not_before, now: slow });
    assert_eq!(outcome.accept_failure(), AcceptFailure::ClientClock);

    let fast = NOW + Duration::days(31);
    let outcome = handshake(controller.pinned(Hand::at(fast)), door());
    let not_after = NOW + Duration::days(30);
    assert_eq!(outcome.client_failure(), TlsFailure::Expired { not_after, now: fast });
    assert_eq!(outcome.accept_failure(), AcceptFailure::ClientClock);
}

#[test]
fn another_server_name_is_named() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let client = Arc::new(controller.pinned(clock.clone()));
    let outcome = handshake_as(&client, &Arc::new(controller.agents_door(clock)), "kube.culvert.internal");
    match outcome.client_failure() {
        TlsFailure::WrongName { expected, presented } => {
            assert_eq!(expected, "kube.culvert.internal");
            assert_eq!(presented.len(), 2, "{presented:?}");
        }
        other => panic!("{other:?}"),
    }
    let alert = "BadCertificate".to_owned();
    assert_eq!(outcome.accept_failure(), AcceptFailure::ClientRejectedOurCertificate { alert });
}

#[test]
fn a_client_of_the_world_that_does_not_know_our_root_is_no_pin_mismatch() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let mut store = rustls::RootCertStore::empty();
    store.add(Controller::new().root.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_details(provider, clock.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let mut door = controller.agents_door(clock);
    door.alpn_protocols.clear();
    let alert = "UnknownCA".to_owned();
    let expected = AcceptFailure::ClientRejectedOurCertificate { alert };
    assert_eq!(handshake(client, door).accept_failure(), expected);
}

#[test]
fn an_expired_client_certificate_is_refused_and_both_know_why() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let agent = controller.enrolled(Duration::days(1));
    clock.forward(Duration::hours(25));
    let outcome = handshake(agent.client(&controller.roots, clock.clone()), controller.agents_door(clock));
    assert_eq!(outcome.accept_failure(), AcceptFailure::ClientCertificateExpired);
    assert_eq!(outcome.client_failure(), TlsFailure::OwnCertificateExpired);
}

/// A client that resumes wherever it can, unlike ours.
fn resuming(agent: &Enrolled, roots: &Roots, clock: &Arc<Hand>) -> Arc<ClientConfig> {
    let mut client = agent.client(roots, clock.clone());
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    Arc::new(client)
}

#[test]
fn an_expired_client_certificate_is_not_let_in_by_resumption() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let agent = controller.enrolled(Duration::hours(1));
    let careless = {
        let mut config = controller.agents_door(clock.clone());
        config.send_tls13_tickets = 2;
        config.session_storage = ServerSessionMemoryCache::new(8);
        Arc::new(config)
    };
    let ours = Arc::new(controller.agents_door(clock.clone()));
    let (to_careless, to_ours) =
        (resuming(&agent, &controller.roots, &clock), resuming(&agent, &controller.roots, &clock));
    assert!(handshake_as(&to_careless, &careless, AGENTS).both_done());
    assert!(handshake_as(&to_ours, &ours, AGENTS).both_done());

    // Still valid: a second visit is a full handshake at our door all the same.
    let again = handshake_as(&to_ours, &ours, AGENTS);
    assert_eq!(again.server.handshake_kind(), Some(HandshakeKind::Full));

    clock.forward(Duration::hours(2));
    // The danger is real: a door that gives tickets lets the expired certificate in.
    let resumed = handshake_as(&to_careless, &careless, AGENTS);
    assert!(resumed.both_done());
    assert_eq!(resumed.server.handshake_kind(), Some(HandshakeKind::Resumed));
    let chain = resumed.server.peer_certificates().unwrap();
    let refused = verify_peer(chain, &controller.roots, &controller.domain, clock.now());
    assert!(matches!(refused, Err(PeerError::Expired { .. })));

    let outcome = handshake_as(&to_ours, &ours, AGENTS);
    assert_eq!(outcome.accept_failure(), AcceptFailure::ClientCertificateExpired);
}

#[test]
fn our_clients_never_resume_even_where_the_server_would() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let open =
        server_config(controller.chain.clone(), &controller.key, ClientAuth::None, &[b"h2"], clock.clone());
    let (open, client) = (Arc::new(open.unwrap()), Arc::new(controller.pinned(clock.clone())));
    let eager = resuming(&controller.enrolled(Duration::days(1)), &controller.roots, &clock);
    for _ in 0..2 {
        let outcome = handshake_as(&client, &open, AGENTS);
        assert_eq!(outcome.server.handshake_kind(), Some(HandshakeKind::Full));
    }
    // A door that takes no client certificate does resume, so the above says something.
    handshake_as(&eager, &open, AGENTS);
    let resumed = handshake_as(&eager, &open, AGENTS);
    assert_eq!(resumed.server.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn what_does_not_speak_tls_is_told_so_at_either_end() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let mut server = ServerConnection::new(Arc::new(controller.agents_door(clock.clone()))).unwrap();
    server.read_tls(&mut b"GET / HTTP/1.1\r\nhost: culvert.internal\r\n\r\n".as_slice()).unwrap();
    let error = io::Error::new(io::ErrorKind::InvalidData, server.process_new_packets().unwrap_err());
    assert_eq!(classify_accept_error(&error), AcceptFailure::NotTls);

    let name = ServerName::try_from(AGENTS).unwrap();
    let mut client = ClientConnection::new(Arc::new(controller.pinned(clock)), name).unwrap();
    client.read_tls(&mut b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice()).unwrap();
    let error = io::Error::new(io::ErrorKind::InvalidData, client.process_new_packets().unwrap_err());
    assert_eq!(TlsFailure::find(&error), Some(TlsFailure::NotTls));
}

/// The smallest hello of TLS 1.2: one cipher suite, no extensions.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend_from_slice(&body);
    hello
}

#[test]
fn a_client_that_stops_at_tls_1_2_is_told_so() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let mut server = ServerConnection::new(Arc::new(controller.agents_door(clock))).unwrap();
    server.read_tls(&mut old_hello().as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error:?}");
    let error = io::Error::new(io::ErrorKind::InvalidData, error);
    assert_eq!(classify_accept_error(&error), AcceptFailure::NotTls);
}

#[test]
fn what_is_shared_between_tasks_may_be() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Authority>();
    shared::<KeyPair>();
    shared::<Roots>();
    shared::<culvert_pki::seal::DataKey>();
    shared::<culvert_pki::seal::FileKek>();
    shared::<TlsFailure>();
}

#[test]
fn failures_of_the_network_are_told_apart_from_those_of_tls() {
    for (kind, expected) in [
        (io::ErrorKind::TimedOut, AcceptFailure::Timeout),
        (io::ErrorKind::UnexpectedEof, AcceptFailure::Closed),
        (io::ErrorKind::ConnectionReset, AcceptFailure::Closed),
        (io::ErrorKind::PermissionDenied, AcceptFailure::Other("permission denied".to_owned())),
    ] {
        assert_eq!(classify_accept_error(&io::Error::from(kind)), expected);
        assert_eq!(TlsFailure::find(&io::Error::from(kind)), None);
    }
}

#[test]
fn a_failure_is_found_below_other_errors() {
    let failure = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
    let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, failure));
    assert_eq!(TlsFailure::find(&wrapped), Some(TlsFailure::OwnCertificateExpired));
}

#[test]
fn key_and_chain_must_fit_and_a_pin_must_be_given() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let other = KeyPair::generate().unwrap();
    assert!(server_config(controller.chain.clone(), &other, ClientAuth::None, &[], clock.clone()).is_err());
    assert!(pinned_client(&[], &[], clock).is_err());
}

#[test]
fn a_proof_to_rejoin_is_bound_to_its_connection() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let agent = controller.enrolled(Duration::days(1));
    let connect = || handshake(controller.pinned(clock.clone()), controller.agents_door(clock.clone()));
    let (first, second) = (connect(), connect());
    let csr = culvert_pki::csr::make(&agent.key).unwrap();
    let statement = |binding| Statement {
        certificate: &agent.chain[0],
        csr: &csr,
        generation: 1,
        clock_ms: 0,
        channel_binding: binding,
    };
    let said = channel_binding(&first.client).unwrap();
    let heard = channel_binding(&first.server).unwrap();
    let elsewhere = channel_binding(&second.server).unwrap();
    let signature = statement(&said).sign(&agent.key).unwrap();
    assert!(statement(&heard).verify(&signature).is_ok());
    assert!(statement(&elsewhere).verify(&signature).is_err());
}

/// rustls checks that a key fits its certificate; a client with a stolen
/// certificate and another key does not even start.
#[test]
fn a_certificate_without_its_key_is_useless() {
    let (controller, clock) = (Controller::new(), Hand::at(NOW));
    let agent = controller.enrolled(Duration::days(1));
    let thief = KeyPair::generate().unwrap();
    let identity = ClientIdentity { chain: &agent.chain, key: &thief };
    assert!(trusted_client(&controller.roots, Some(identity), &[], clock.clone()).is_err());

    // One that does not check is refused by the door, for the signature.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pkcs8 = PrivateKeyDer::try_from(thief.to_pkcs8().to_vec()).unwrap();
    let signer = provider.key_provider.load_private_key(pkcs8).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(agent.chain.clone(), signer);
    let mut client = agent.client(&controller.roots, clock.clone());
    client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    let outcome = handshake(client, controller.agents_door(clock));
    assert!(matches!(outcome.accept_failure(), AcceptFailure::UntrustedClientCertificate { .. }));
}
