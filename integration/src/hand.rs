//! An agent made by hand, for what the real program never does: one token many
//! times at once, requests with wishes, clocks that are off, keys in two places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::name::TrustDomain;
use culvert_pki::rejoin::{Statement, channel_binding};
use culvert_pki::tls::{self, ClientIdentity, Clock};
use culvert_pki::token::JoinToken;
use culvert_pki::verify::{Peer, Roots, verify_peer};
use culvert_proto::enrolment::v1::enrolment_client::EnrolmentClient;
use culvert_proto::enrolment::v1::{self as proto, EnrolRequest, EnrolResponse};
use culvert_proto::telemetry::v1::telemetry_client::TelemetryClient;
use culvert_proto::telemetry::v1::{ReportRequest, ReportResponse};
use culvert_proto::tunnel::v1::{Facts, Hello};
use culvert_tunnel::{
    Call, Channel, Failure, FailureCode, Handler, Limits, Link, LinkEnd, REFUSAL, Reply, Signal, tune,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use time::OffsetDateTime;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::controller::{Controller, DOMAIN};
use crate::stage::clock;

/// The longest the controller may take over one RPC.
const PATIENCE: Duration = Duration::from_secs(30);

/// The version that a well-behaved agent of this build tells.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where a hand-made agent dials, and what it believes the time is.
#[derive(Clone)]
pub struct Hand {
    address: SocketAddr,
    domain: TrustDomain,
    clock: Clock,
    from: IpAddr,
}

/// A connection at the agents' door.
pub struct Reached {
    link: Link,
    binding: [u8; 32],
    origin: http::Uri,
}

/// An identity that was issued, with its key.
pub struct Held {
    /// The key.
    pub key: KeyPair,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The controller's roots.
    pub roots: Roots,
    /// Counter of the certificate.
    pub generation: u64,
}

/// A clock that is off by a fixed time.
#[derive(Debug)]
pub struct Shifted(
    /// Seconds ahead of the real time; negative when behind.
    pub i64,
);

impl TimeProvider for Shifted {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now.saturating_add_signed(self.0))))
    }
}

impl Hand {
    /// One that dials `controller` with the right time.
    pub fn new(controller: &Controller) -> anyhow::Result<Self> {
        Ok(Self {
            address: controller.address(),
            domain: DOMAIN.parse()?,
            clock: clock(),
            from: Ipv4Addr::UNSPECIFIED.into(),
        })
    }

    /// The same with a clock that is `seconds` ahead.
    #[must_use]
    pub fn with_clock_off_by(self, seconds: i64) -> Self {
        Self { clock: Arc::new(Shifted(seconds)), ..self }
    }

    /// The same, dialling from one of this machine's addresses.
    #[must_use]
    pub fn from_address(self, from: IpAddr) -> Self {
        Self { from, ..self }
    }

    /// Connects as an agent that enrols with `token`.
    pub async fn reach(&self, token: &JoinToken) -> anyhow::Result<Reached> {
        let tls = tls::pinned_client(&token.pins(), &[b"h2"], self.clock.clone())?;
        self.dial(&self.domain.enrolment_server_name(&token.id()), tls).await
    }

    /// Connects as an agent that comes back, with its certificate or without.
    pub async fn reach_as(&self, held: &Held, show_certificate: bool) -> anyhow::Result<Reached> {
        let identity = ClientIdentity { chain: &held.chain, key: &held.key };
        let shown = show_certificate.then_some(identity);
        let tls = tls::trusted_client(&held.roots, shown, &[b"h2"], self.clock.clone())?;
        self.dial(&self.domain.agents_server_name(), tls).await
    }

    async fn dial(&self, name: &str, tls: rustls::ClientConfig) -> anyhow::Result<Reached> {
        let server_name = ServerName::try_from(name.to_owned())?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let tcp = tokio::time::timeout(PATIENCE, socket.connect(self.address)).await??;
        tune(&tcp)?;
        let connecting = TlsConnector::from(Arc::new(tls)).connect(server_name, tcp);
        let carrier = tokio::time::timeout(PATIENCE, connecting).await??;
        let binding = channel_binding(carrier.get_ref().1)?;
        let link = Link::start(carrier, Limits::default()).await?;
        Ok(Reached { link, binding, origin: format!("https://{name}").parse()? })
    }

    /// Enrols with `token` as the real agent does.
    pub async fn enrol(&self, token: &JoinToken) -> anyhow::Result<Held> {
        let key = KeyPair::generate()?;
        let answer = self.reach(token).await?.enrol(enrol_request(token, csr::make(&key)?)).await;
        Held::take(key, answer.map_err(|status| anyhow::anyhow!("{status:?}"))?)
    }
}

/// What a well-behaved agent sends with `token`.
pub fn enrol_request(token: &JoinToken, csr: Vec<u8>) -> EnrolRequest {
    EnrolRequest {
        token_id: token.id().to_string(),
        token_secret: Bytes::copy_from_slice(token.secret()),
        csr: csr.into(),
        agent_version: VERSION.to_owned(),
        clock_ms: clock_ms(),
    }
}

/// Milliseconds since the Unix epoch.
pub fn clock_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The code with which the controller refused.
pub fn refusal(status: &tonic::Status) -> String {
    let code = status.metadata().get(REFUSAL).and_then(|code| code.to_str().ok());
    code.map_or_else(|| format!("no refusal: {status:?}"), str::to_owned)
}

impl Reached {
    /// Redeems a token.
    pub async fn enrol(&self, request: EnrolRequest) -> Result<EnrolResponse, tonic::Status> {
        bounded(self.client().enrol(request)).await
    }

    /// Asks for the next certificate.
    pub async fn renew(&self, csr: Vec<u8>) -> Result<proto::RenewResponse, tonic::Status> {
        bounded(self.client().renew(proto::RenewRequest { csr: csr.into() })).await
    }

    /// Comes back after expiry.
    pub async fn rejoin(
        &self,
        request: proto::RejoinRequest,
    ) -> Result<proto::RejoinResponse, tonic::Status> {
        bounded(self.client().rejoin(request)).await
    }

    /// What the holder of `key` signs to come back, on this very connection, as the
    /// agent that `held` names.
    pub fn rejoin_request(
        &self,
        held: &Held,
        key: &KeyPair,
        generation: u64,
    ) -> anyhow::Result<proto::RejoinRequest> {
        let csr = csr::make(key)?;
        let certificate = held.chain.first().context("an identity has a certificate")?;
        let clock_ms = clock_ms();
        let statement =
            Statement { certificate, csr: &csr, generation, clock_ms, channel_binding: &self.binding };
        Ok(proto::RejoinRequest {
            signature: statement.sign(key)?.into(),
            certificate: Bytes::copy_from_slice(certificate),
            generation,
            agent_version: VERSION.to_owned(),
            clock_ms,
            csr: csr.into(),
        })
    }

    /// Says `hello` and stays until the session ends.
    pub async fn session(&self, hello: Hello) -> anyhow::Result<LinkEnd> {
        let (_facts, facts) = watch::channel(None::<Facts>);
        let (signals, mut heard) = mpsc::channel::<Signal>(16);
        let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let session = self.link.run(hello, Idle, facts, signals, CancellationToken::new());
        let end = tokio::time::timeout(PATIENCE, session).await.context("the session goes on");
        listening.abort();
        end
    }

    /// Tells of its cluster.
    pub async fn report(&self, report: ReportRequest) -> Result<ReportResponse, tonic::Status> {
        let mut client = TelemetryClient::with_origin(self.link.channel(), self.origin.clone());
        bounded(client.report(report)).await
    }

    fn client(&self) -> EnrolmentClient<Channel> {
        EnrolmentClient::with_origin(self.link.channel(), self.origin.clone())
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded("the controller did not answer in time")),
    }
}

impl Held {
    /// Keeps what an enrolment gave for `key`.
    pub fn take(key: KeyPair, answer: EnrolResponse) -> anyhow::Result<Self> {
        let certificate = answer.certificate.context("an answer has a certificate")?;
        Self::of(key, certificate, answer.generation)
    }

    /// Keeps a certificate for `key`.
    pub fn of(key: KeyPair, certificate: proto::Certificate, generation: u64) -> anyhow::Result<Self> {
        let der = |list: Vec<Bytes>| list.into_iter().map(|der| CertificateDer::from(der.to_vec()));
        let chain = der(certificate.chain).collect();
        let roots = Roots::new(der(certificate.roots))?;
        Ok(Self { key, chain, roots, generation })
    }

    /// The leaf, DER.
    pub fn leaf(&self) -> anyhow::Result<&CertificateDer<'static>> {
        self.chain.first().context("an identity has a certificate")
    }

    /// Whom the certificate names, its chain verified.
    pub fn peer(&self) -> anyhow::Result<Peer> {
        Ok(verify_peer(&self.chain, &self.roots, &DOMAIN.parse()?, OffsetDateTime::now_utc())?)
    }
}

/// A hello of this version, with the right time.
pub fn hello() -> Hello {
    Hello {
        version: VERSION.to_owned(),
        instance: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
        clock_ms: clock_ms(),
        ..Hello::default()
    }
}

/// Answers no call.
#[derive(Clone)]
struct Idle;

impl Handler for Idle {
    async fn handle(&self, _call: Call) -> Result<Reply, Failure> {
        Err(Failure::new(FailureCode::Unreachable, "made by hand, reaches nothing"))
    }
}
