//! Dialling: straight, through proxies of both kinds, and every way it can fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use culvert_pki::tls::TlsFailure;
use culvert_tunnel::{DialError, Dialer, Phase, Proxy, ProxyCredentials, Timeouts};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn once() {
    // Every test of this file may be the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

struct Authority {
    config: Arc<ServerConfig>,
    root: CertificateDer<'static>,
}

/// A server certificate for this name, self-signed, so that it is its own root.
fn authority(name: &str) -> Authority {
    once();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let root = certificate.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![root.clone()], key).unwrap();
    Authority { config: Arc::new(config), root }
}

impl Authority {
    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Echoes one connection after TLS, and gives the exporter's bytes first.
async fn controller(authority: &Authority) -> SocketAddr {
    let (listener, address) = listener().await;
    let acceptor = TlsAcceptor::from(authority.config.clone());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let name = culvert_pki::rejoin::channel_binding(tls.get_ref().1).unwrap();
                tls.write_all(&name).await.unwrap();
                let mut byte = [0];
                while tls.read_exact(&mut byte).await.is_ok() && tls.write_all(&byte).await.is_ok() {}
            });
        }
    });
    address
}

/// A proxy that answers as it is told, or connects when it is told nothing.
async fn proxy(
    tls: Option<Arc<ServerConfig>>,
    expect: Option<&'static str>,
    answer: Option<&'static str>,
) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve_proxy(tcp, expect, answer).await,
                    Some(config) => {
                        if let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await {
                            serve_proxy(tls, expect, answer).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve_proxy<IO>(mut io: IO, expect: Option<&'static str>, answer: Option<&'static str>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if io.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    if expect.is_some_and(|expect| !head.contains(expect)) {
        io.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.ok();
        return;
    }
    if let Some(answer) = answer {
        io.write_all(answer.as_bytes()).await.ok();
        // It stays open, as a proxy that thinks would.
        std::future::pending::<()>().await;
    }
    let target = head.split_whitespace().nth(1).unwrap();
    let mut tcp = TcpStream::connect(target).await.unwrap();
    io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    copy_bidirectional(&mut io, &mut tcp).await.ok();
}

fn dialer(address: SocketAddr, tls: Arc<ClientConfig>) -> Dialer {
    Dialer::new(address.to_string(), ServerName::try_from("agents.culvert.internal").unwrap(), tls)
}

fn through(uri: String) -> Proxy {
    Proxy { uri: uri.parse().unwrap(), credentials: None, roots: Vec::new() }
}

async fn check(dialer: &Dialer) {
    let mut carrier = dialer.dial().await.unwrap();
    let mut theirs = [0; 32];
    carrier.read_exact(&mut theirs).await.unwrap();
    assert_eq!(carrier.exporter().unwrap(), theirs, "both ends name the session alike");
    carrier.write_all(b"x").await.unwrap();
    let mut echo = [0];
    carrier.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"x");
    assert_eq!(carrier.peer_certificates().len(), 1);
}

#[tokio::test]
async fn straight_and_through_both_kinds_of_proxy() {
    let ours = authority("agents.culvert.internal");
    let address = controller(&ours).await;
    let mut dialer = dialer(address, ours.trusted());
    check(&dialer).await;
    let plain = proxy(None, None, None).await;
    dialer.proxy = Some(through(format!("http://{plain}")));
    check(&dialer).await;
    let proxys = authority("localhost");
    let secure =
        proxy(Some(proxys.config.clone()), Some("Proxy-Authorization: Basic c2l0ZTpzZWNyZXQ="), None).await;
    let credentials = ProxyCredentials { user: "site".into(), password: "secret".to_owned().into() };
    let uri = format!("https://localhost:{}", secure.port()).parse().unwrap();
    dialer.proxy = Some(Proxy { uri, credentials: Some(credentials), roots: vec![proxys.root.clone()] });
    check(&dialer).await;
}

#[tokio::test]
async fn every_failure_has_its_own_name() {
    let ours = authority("agents.culvert.internal");
    let other = authority("agents.culvert.internal");
    let elsewhere = authority("elsewhere.example");
    let address = controller(&ours).await;
    let fail = async |dialer: Dialer| {
        let error = dialer.dial().await.expect_err("it cannot be reached");
        (error.code(), error)
    };

    let mut nowhere = dialer(address, ours.trusted());
    nowhere.address = "no-such-name.invalid:443".into();
    let (code, error) = fail(nowhere).await;
    assert_eq!(code, "dns", "{error:?}");

    let (closed, free) = listener().await;
    drop(closed);
    let (code, error) = fail(dialer(free, ours.trusted())).await;
    assert_eq!(code, "connect", "{error:?}");

    let (_, error) = fail(dialer(address, other.trusted())).await;
    assert!(matches!(error, DialError::Tls(TlsFailure::BadCertificate(_))), "{error:?}");

    let wrong_name = controller(&elsewhere).await;
    let (code, error) = fail(dialer(wrong_name, elsewhere.trusted())).await;
    assert_eq!(code, "wrong_server_name", "{error:?}");

    let with = |proxy: SocketAddr| {
        let mut dialer = dialer(address, ours.trusted());
        dialer.proxy = Some(through(format!("http://{proxy}")));
        dialer.timeouts = Timeouts { proxy: Duration::from_millis(300), ..Timeouts::default() };
        dialer
    };
    let (code, error) = fail(with(proxy(None, Some("Proxy-Authorization"), None).await)).await;
    assert_eq!(code, "proxy_auth", "{error:?}");
    let (_, error) = fail(with(proxy(None, None, Some("HTTP/1.1 403 Forbidden\r\n\r\n")).await)).await;
    assert!(matches!(error, DialError::ProxyRefused { status: 403 }), "{error:?}");
    let (_, error) = fail(with(proxy(None, None, Some("HTTP/1.1 200 OK\r\n")).await)).await;
    assert!(matches!(error, DialError::Timeout(Phase::Proxy)), "{error:?}");
    let endless: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    let (code, error) = fail(with(proxy(None, None, Some(endless)).await)).await;
    assert_eq!(code, "proxy_broken", "{error:?}");

    let stranger = proxy(Some(other.config.clone()), None, None).await;
    let mut untrusted = with(stranger);
    let uri = format!("https://{stranger}").parse().unwrap();
    untrusted.proxy = Some(Proxy { uri, credentials: None, roots: vec![ours.root.clone()] });
    let (code, error) = fail(untrusted).await;
    assert_eq!(code, "proxy_tls", "{error:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let ours = authority("agents.culvert.internal");
    let (_silent, address) = listener().await;
    let mut dialer = dialer(address, ours.trusted());
    dialer.timeouts = Timeouts { tls: Duration::from_millis(200), ..Timeouts::default() };
    let error = dialer.dial().await.expect_err("it says nothing");
    assert!(matches!(error, DialError::Timeout(Phase::Tls)), "{error:?}");
}

#[tokio::test]
async fn a_plain_server_is_told_apart() {
    let ours = authority("agents.culvert.internal");
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = dialer(address, ours.trusted()).dial().await.expect_err("it speaks no TLS");
    assert_eq!(error.code(), "not_tls", "{error:?}");
}

#[tokio::test]
async fn rule_7_the_socket_is_tuned() {
    let (listener, address) = listener().await;
    let (tcp, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    for tcp in [tcp.unwrap(), accepted.unwrap().0] {
        culvert_tunnel::tune(&tcp).unwrap();
        assert!(tcp.nodelay().unwrap());
        let socket = socket2::SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
    }
}
