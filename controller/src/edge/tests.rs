//! The port against clients of every kind: good, slow, mute, wrong and too many.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_pki::authority::Authority;
use culvert_pki::key::KeyPair;
use culvert_pki::name::{Purpose, TrustDomain};
use culvert_pki::pin::Pin;
use culvert_pki::tls::{AcceptFailure, ClientAuth, classify_accept_error, pinned_client, server_config};
use culvert_pki::verify::Roots;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::supervise::Supervisor;

const PATIENCE: Duration = Duration::from_secs(10);

struct Port {
    address: SocketAddr,
    root: Authority,
    away: mpsc::UnboundedReceiver<(Arrival, TurnedAway)>,
    stop: CancellationToken,
    supervisor: Supervisor,
}

#[derive(Clone)]
struct Echo {
    away: mpsc::UnboundedSender<(Arrival, TurnedAway)>,
    limits: HttpLimits,
    supervisor: Supervisor,
}

impl Rooms for Echo {
    async fn welcome(&self, connection: Connection<TcpStream>) {
        let page = Page(connection.arrival.door);
        serve(connection.stream, connection.http2, page, &self.limits, &self.supervisor).await;
    }

    async fn welcome_carried(&self, connection: Connection<Inner>) {
        let page = Page(connection.arrival.door);
        serve(connection.stream, connection.http2, page, &self.limits, &self.supervisor).await;
    }

    async fn turned_away(&self, arrival: Arrival, cause: TurnedAway) {
        let _ = self.away.send((arrival, cause));
    }
}

#[derive(Clone)]
struct Page(Door);

impl Service for Page {
    type Body = Full<Bytes>;

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send + 'static {
        let page = format!("{:?} {}", self.0, request.uri().path());
        async { Response::new(Full::new(page.into())) }
    }
}

fn domain() -> TrustDomain {
    "culvert.internal".parse().unwrap()
}

fn door_tls(root: &Authority) -> DoorTls {
    let now = time::OffsetDateTime::now_utc();
    let servers = root.intermediate(Purpose::Servers, now).unwrap();
    let roots = Roots::new([root.certificate().clone()]).unwrap();
    let clock = Arc::new(DefaultTimeProvider);
    let door = |names: &[&str], client_auth: ClientAuth<'_>| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let life = time::Duration::hours(1);
        let issued = servers.issue_server(&names, &key.verified_key().unwrap(), now, life).unwrap();
        let chain = issued.chain.into_iter().chain([root.certificate().clone()]).collect();
        Arc::new(server_config(chain, &key, client_auth, &[b"h2", b"http/1.1"], clock.clone()).unwrap())
    };
    DoorTls {
        api: door(&["culvert.internal"], ClientAuth::None),
        agents: door(&["agents.culvert.internal", "*.agents.culvert.internal"], ClientAuth::Optional(&roots)),
        gateway: door(&["kube.culvert.internal"], ClientAuth::Optional(&roots)),
        replicas: door(&["a.replicas.culvert.internal"], ClientAuth::Optional(&roots)),
    }
}

async fn port(limits: EdgeLimits, http: HttpLimits) -> Port {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = Authority::root(&domain(), time::OffsetDateTime::now_utc()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_keep, tls) = watch::channel(Arc::new(door_tls(&root)));
    let stop = CancellationToken::new();
    let supervisor = Supervisor::new(stop.clone());
    let edge =
        Edge::new(listener, Names::new(&domain()), tls, limits, EdgeMetrics::default(), supervisor.clone());
    let (sender, away) = mpsc::unbounded_channel();
    let rooms = Echo { away: sender, limits: http, supervisor: supervisor.clone() };
    supervisor.vital("edge", edge.run(rooms));
    Port { address, root, away, stop, supervisor }
}

impl Port {
    async fn connect(&self, name: &str, alpn: &[u8], pins: &[Pin]) -> io::Result<TlsStream<TcpStream>> {
        let config = pinned_client(pins, &[alpn], Arc::new(DefaultTimeProvider)).unwrap();
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    async fn ours(&self, name: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.connect(name, alpn, &[self.root.pin()]).await.unwrap()
    }

    async fn page(&self, name: &str, http2: bool) -> String {
        let stream = TokioIo::new(self.ours(name, if http2 { b"h2" } else { b"http/1.1" }).await);
        let request = Request::get(format!("https://{name}/x")).body(Empty::<Bytes>::new()).unwrap();
        let answer = if http2 {
            let (mut send, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(driver);
            send.send_request(request).await.unwrap()
        } else {
            let (mut send, driver) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(driver);
            send.send_request(request).await.unwrap()
        };
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    async fn away(&mut self) -> (Arrival, TurnedAway) {
        timeout(PATIENCE, self.away.recv()).await.expect("nothing was turned away in time").unwrap()
    }
}

/// Reads to the end; a reset counts as the end.
async fn rest(tcp: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        let mut buffer = [0u8; 4096];
        while let Ok(count @ 1..) = tcp.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(PATIENCE, reading).await.expect("the connection was not closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn each_name_leads_to_its_door_in_both_versions_of_http() {
    let port = port(EdgeLimits::default(), HttpLimits::default()).await;
    for (name, page) in [
        ("culvert.internal", "Api /x"),
        ("kube.culvert.internal", "Gateway /x"),
        ("agents.culvert.internal", "Agents /x"),
    ] {
        assert_eq!(port.page(name, true).await, page);
        assert_eq!(port.page(name, false).await, page);
    }
}

#[tokio::test]
async fn plain_http_is_told_that_this_port_speaks_tls() {
    let port = port(EdgeLimits::default(), HttpLimits::default()).await;
    let mut tcp = TcpStream::connect(port.address).await.unwrap();
    tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = rest(&mut tcp).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("This port speaks TLS"), "{answer}");
}

#[tokio::test]
async fn garbage_and_silence_are_closed_and_harm_nobody() {
    let limits = EdgeLimits { hello: Duration::from_millis(200), ..EdgeLimits::default() };
    let port = port(limits, HttpLimits::default()).await;
    for bytes in [
        &b"\x00\xffgarbage"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"",
    ] {
        let mut tcp = TcpStream::connect(port.address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        rest(&mut tcp).await;
    }
    assert_eq!(port.page("culvert.internal", true).await, "Api /x");
}

#[tokio::test]
async fn slow_hellos_of_one_network_stop_neither_it_nor_others_for_long() {
    let limits =
        EdgeLimits { handshakes_per_source: 4, hello: Duration::from_millis(300), ..EdgeLimits::default() };
    let port = port(limits, HttpLimits::default()).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(TcpStream::connect(port.address).await.unwrap());
    }
    let mut fifth = TcpStream::connect(port.address).await.unwrap();
    assert_eq!(rest(&mut fifth).await, "", "the fifth is closed at once");
    for mut tcp in slow {
        rest(&mut tcp).await;
    }
    assert_eq!(port.page("culvert.internal", true).await, "Api /x");
}

#[tokio::test]
async fn a_client_with_another_pin_is_named_with_its_token_and_cause() {
    let mut port = port(EdgeLimits::default(), HttpLimits::default()).await;
    let other = Authority::root(&domain(), time::OffsetDateTime::now_utc()).unwrap();
    let name = "abcdefghij234.agents.culvert.internal";
    port.connect(name, b"h2", &[other.pin()]).await.expect_err("the pin is another one");
    let (arrival, cause) = port.away().await;
    assert_eq!(
        (arrival.door, arrival.token_id.map(|id| id.to_string()).as_deref()),
        (Door::Agents, Some("abcdefghij234"))
    );
    let TurnedAway::Tls(error) = cause else { panic!("{cause}") };
    assert_eq!(classify_accept_error(&error), AcceptFailure::ClientPinMismatch);
}

#[tokio::test]
async fn a_full_door_turns_away_and_the_other_stays_open() {
    let mut port = port(EdgeLimits { connections: 4, ..EdgeLimits::default() }, HttpLimits::default()).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(port.ours("agents.culvert.internal", b"h2").await);
    }
    port.connect("agents.culvert.internal", b"h2", &[port.root.pin()])
        .await
        .expect_err("no place at this door");
    assert!(matches!(port.away().await, (_, TurnedAway::Full)));
    assert_eq!(port.page("culvert.internal", true).await, "Api /x");
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed_on_every_door() {
    let limits = HttpLimits {
        head_time: Duration::from_millis(200),
        idle: Duration::from_millis(200),
        ..HttpLimits::default()
    };
    let port = port(EdgeLimits::default(), limits).await;
    for name in ["culvert.internal", "kube.culvert.internal"] {
        let mut slow = port.ours(name, b"http/1.1").await;
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ").await.unwrap();
        let answer = rest(&mut slow).await;
        assert!(!answer.contains(" 200 "), "{answer}");
        let mut idle = port.ours(name, b"h2").await;
        idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            .await
            .unwrap();
        rest(&mut idle).await;
        let mut mute = port.ours(name, b"h2").await;
        rest(&mut mute).await;
    }
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let port =
        port(EdgeLimits::default(), HttpLimits { head_size: 16 * 1024, ..HttpLimits::default() }).await;
    let mut stream = port.ours("kube.culvert.internal", b"http/1.1").await;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let _ = stream.write_all(head.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(port.page("kube.culvert.internal", true).await, "Gateway /x");
}

#[tokio::test]
async fn when_the_process_stops_the_port_is_closed_and_connections_end() {
    let port = port(EdgeLimits::default(), HttpLimits::default()).await;
    let mut idle = port.ours("culvert.internal", b"http/1.1").await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0u8; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    port.stop.cancel();
    rest(&mut idle).await;
    assert_eq!(port.supervisor.finish(PATIENCE).await, Ok(()));
    assert!(TcpStream::connect(port.address).await.is_err());
}
