//! For tests: a controller of real parts but for its store: TLS by pki, the hub of the tunnel, enrolment in memory.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use culvert_pki::authority::Authority;
use culvert_pki::key::{KeyPair, VerifiedKey};
use culvert_pki::name::{Identity as Name, Purpose};
use culvert_pki::pin::Pin;
use culvert_pki::rejoin::{Statement, channel_binding};
use culvert_pki::tls::{ClientAuth, server_config};
use culvert_pki::token::{JoinToken, SecretHash};
use culvert_pki::verify::{Roots, verify_peer};
use culvert_proto::enrolment::v1 as proto;
use culvert_proto::enrolment::v1::enrolment_server::{Enrolment, EnrolmentServer};
use culvert_proto::tunnel::v1::Hello;
use culvert_tunnel::{Admission, Admitted, AgentKey, Hub, Limits, Peer, REFUSAL, Refusal};
use rustls::pki_types::CertificateDer;
use rustls::time_provider::DefaultTimeProvider;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{domain, provider};

/// One call of the enrolment service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Enrol(Pin),
    Renew(Pin),
    Rejoin(Pin),
}

struct Token {
    hash: SecretHash,
    used_by: Option<(Pin, proto::EnrolResponse)>,
}

/// What tests set and see.
pub(crate) struct Shared {
    root: Authority,
    agents: Authority,
    org: Uuid,
    agent: Uuid,
    tokens: Mutex<HashMap<String, Token>>,
    generation: Mutex<u64>,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// How long certificates live.
    pub(crate) lifetime: Mutex<Duration>,
    /// Answers to enrolments that get lost on their way back.
    pub(crate) lose: Mutex<u32>,
    /// What every `Hello` is refused with.
    pub(crate) refusal: Mutex<Option<Refusal>>,
}

pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) hub: Hub,
    pub(crate) shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Controller {
    pub(crate) async fn start() -> Controller {
        provider();
        let now = OffsetDateTime::now_utc();
        let root = Authority::root(&domain(), now).unwrap();
        let servers = root.intermediate(Purpose::Servers, now).unwrap();
        let org = Uuid::now_v7();
        let agents = root.intermediate(Purpose::Agents(org), now).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["agents.culvert.internal".to_owned(), "*.agents.culvert.internal".to_owned()];
        let life = time::Duration::hours(1);
        let issued = servers.issue_server(&names, &key.verified_key().unwrap(), now, life).unwrap();
        let mut chain = issued.chain;
        chain.push(root.certificate().clone());
        let roots = Roots::new([root.certificate().clone()]).unwrap();
        let clock = Arc::new(DefaultTimeProvider);
        let tls = server_config(chain, &key, ClientAuth::Optional(&roots), &[b"h2"], clock).unwrap();
        let shared = Arc::new(Shared {
            root,
            agents,
            org,
            agent: Uuid::now_v7(),
            tokens: Mutex::default(),
            generation: Mutex::new(0),
            seen: Mutex::default(),
            lifetime: Mutex::new(Duration::from_secs(3600)),
            lose: Mutex::new(0),
            refusal: Mutex::new(None),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hub = Hub::new("r1".to_owned(), Limits::default());
        let mut tasks = JoinSet::new();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tasks.spawn(accept(listener, acceptor, roots, hub.clone(), Arc::clone(&shared)));
        Controller { address, hub, shared, _tasks: tasks }
    }

    /// A token that this controller knows.
    pub(crate) fn token(&self) -> JoinToken {
        let token = JoinToken::generate(self.shared.root.pin(), None).unwrap();
        let known = Token { hash: token.hash(), used_by: None };
        self.shared.tokens.lock().unwrap().insert(token.id().to_string(), known);
        token
    }

    pub(crate) fn key(&self) -> AgentKey {
        AgentKey { org: self.shared.org, agent: self.shared.agent }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        *self.shared.refusal.lock().unwrap() = refusal;
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, roots: Roots, hub: Hub, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, source) = listener.accept().await.unwrap();
        let (acceptor, roots, hub, shared) =
            (acceptor.clone(), roots.clone(), hub.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let connection = tls.get_ref().1;
            let binding = channel_binding(connection).unwrap();
            let peer = connection.peer_certificates().map(|chain| {
                let peer = verify_peer(chain, &roots, &domain(), OffsetDateTime::now_utc()).unwrap();
                let Name::Agent { org, agent } = peer.identity else { panic!("{:?}", peer.identity) };
                (AgentKey { org, agent }, SystemTime::from(peer.not_after))
            });
            let peer = Peer { agent: peer.map(|(key, _)| key), source, not_after: peer.map(|(_, end)| end) };
            let service = EnrolmentServer::new(Door { shared: Arc::clone(&shared), binding });
            hub.serve(tls, peer, Gate(shared), service, CancellationToken::new()).await;
        });
    }
}

struct Gate(Arc<Shared>);

impl Admission for Gate {
    async fn admit(&self, _: AgentKey, _: &Hello, _: SocketAddr) -> Result<Admitted, Refusal> {
        match self.0.refusal.lock().unwrap().clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Admitted::default()),
        }
    }
}

struct Door {
    shared: Arc<Shared>,
    binding: [u8; 32],
}

fn refused(code: &'static str) -> Status {
    let mut status = Status::permission_denied(format!("refused by the test: {code}"));
    status.metadata_mut().insert(REFUSAL, code.parse().unwrap());
    status
}

impl Shared {
    fn issue(&self, key: &VerifiedKey) -> (proto::Certificate, u64) {
        let name = Name::Agent { org: self.org, agent: self.agent };
        let lifetime = time::Duration::try_from(*self.lifetime.lock().unwrap()).unwrap();
        let issued = self.agents.issue_identity(name, key, OffsetDateTime::now_utc(), lifetime).unwrap();
        let bytes = |der: &CertificateDer<'_>| bytes::Bytes::copy_from_slice(der);
        let certificate = proto::Certificate {
            chain: issued.chain.iter().map(bytes).collect(),
            roots: vec![bytes(self.root.certificate())],
            not_before: issued.not_before.unix_timestamp(),
            not_after: issued.not_after.unix_timestamp(),
        };
        let mut generation = self.generation.lock().unwrap();
        *generation += 1;
        (certificate, *generation)
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }
}

#[tonic::async_trait]
impl Enrolment for Door {
    async fn enrol(
        &self,
        request: Request<proto::EnrolRequest>,
    ) -> Result<Response<proto::EnrolResponse>, Status> {
        let request = request.into_inner();
        let key = culvert_pki::csr::public_key(&request.csr).map_err(|_| refused("csr_invalid"))?;
        self.shared.note(Seen::Enrol(key.pin()));
        let mut tokens = self.shared.tokens.lock().unwrap();
        let token = tokens
            .get_mut(&request.token_id)
            .filter(|token| token.hash == SecretHash::of(&request.token_secret))
            .ok_or_else(|| refused("token_unknown"))?;
        let answer = match &token.used_by {
            Some((used_by, answer)) if *used_by == key.pin() => answer.clone(),
            Some(_) => return Err(refused("token_used")),
            None => {
                let (certificate, generation) = self.shared.issue(&key);
                let answer = proto::EnrolResponse {
                    certificate: Some(certificate),
                    cluster_id: "cls_1".to_owned(),
                    cluster_name: "plant".to_owned(),
                    generation,
                };
                token.used_by = Some((key.pin(), answer.clone()));
                answer
            }
        };
        let mut lose = self.shared.lose.lock().unwrap();
        if *lose > 0 {
            *lose -= 1;
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(Response::new(answer))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewResponse>, Status> {
        if request.extensions().get::<Peer>().is_none_or(|peer| peer.agent.is_none()) {
            return Err(refused("unauthenticated"));
        }
        let key =
            culvert_pki::csr::public_key(&request.into_inner().csr).map_err(|_| refused("csr_invalid"))?;
        self.shared.note(Seen::Renew(key.pin()));
        let (certificate, generation) = self.shared.issue(&key);
        Ok(Response::new(proto::RenewResponse { certificate: Some(certificate), generation }))
    }

    async fn rejoin(
        &self,
        request: Request<proto::RejoinRequest>,
    ) -> Result<Response<proto::RejoinResponse>, Status> {
        let request = request.into_inner();
        let statement = Statement {
            certificate: &request.certificate,
            csr: &request.csr,
            generation: request.generation,
            clock_ms: request.clock_ms,
            channel_binding: &self.binding,
        };
        let key = statement.verify(&request.signature).map_err(|_| refused("certificate_unknown"))?;
        if request.generation != *self.shared.generation.lock().unwrap() {
            return Err(refused("counter_mismatch"));
        }
        self.shared.note(Seen::Rejoin(key.pin()));
        let (certificate, generation) = self.shared.issue(&key);
        Ok(Response::new(proto::RejoinResponse { certificate: Some(certificate), generation }))
    }
}
