//! For tests: an API server that says what it was asked, over TLS on a random port.
pub(crate) mod controller;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_pki::authority::Authority;
use culvert_pki::key::KeyPair;
use culvert_pki::name::{Purpose, TrustDomain};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Bound of every wait in tests.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {LONG:?}"),
    }
}

/// Asks again and again until it is so; fails with what was seen last.
pub(crate) async fn until<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = tokio::time::Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(seen) if tokio::time::Instant::now() > end => panic!("{what}: last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Lets tests of one process use TLS.
pub(crate) fn provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A trust domain of its own.
pub(crate) fn domain() -> TrustDomain {
    "culvert.internal".parse().unwrap()
}

/// What the server was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// A fake API server; it ends when this is dropped.
pub(crate) struct FakeApi {
    pub(crate) config: kube::Config,
    pub(crate) asked: mpsc::UnboundedReceiver<Asked>,
    _server: JoinSet<()>,
}

impl FakeApi {
    pub(crate) async fn start() -> FakeApi {
        provider();
        let now = OffsetDateTime::now_utc();
        let root = Authority::root(&domain(), now).unwrap();
        let servers = root.intermediate(Purpose::Servers, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned()];
        let life = time::Duration::hours(1);
        let issued = servers.issue_server(&names, &key.verified_key().unwrap(), now, life).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.to_pkcs8().to_vec().into());
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(issued.chain, key)
            .unwrap();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = mpsc::unbounded_channel();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), sender));
        let mut config = kube::Config::new(format!("https://127.0.0.1:{port}/base").parse().unwrap());
        config.root_cert = Some(vec![root.certificate().to_vec()]);
        config.tls_server_name = Some("localhost".to_owned());
        config.auth_info.token = Some("agents-own".to_owned().into());
        FakeApi { config, asked, _server: server }
    }

    /// A kubeconfig file for this server.
    pub(crate) fn kubeconfig(&self, folder: &std::path::Path) -> std::path::PathBuf {
        let path = folder.join("kubeconfig");
        let ca = self.config.root_cert.as_ref().unwrap()[0].clone();
        let ca = culvert_pki::pem::certificates_to_pem(&[ca.into()]);
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {
                "server": self.config.cluster_url.to_string(),
                "tls-server-name": "localhost",
                "certificate-authority-data": data_encoding::BASE64.encode(ca.as_bytes()),
            }}],
            "users": [{"name": "u", "user": {"token": "agents-own"}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    pub(crate) async fn next(&mut self) -> Asked {
        soon("a request", self.asked.recv()).await.unwrap()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: mpsc::UnboundedSender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(move |request| answer(request, asked.clone()));
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
            let _ = serving.with_upgrades().await;
        });
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    asked: mpsc::UnboundedSender<Asked>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let seen = Asked {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    let _ = asked.send(seen);
    Ok(match path.strip_prefix("/base").unwrap_or(&path) {
        "/api/v1/namespaces/a/pods/redirect" => {
            let to = Response::builder().status(302).header("location", "https://127.0.0.1:1/elsewhere");
            to.body(full("moved")).unwrap()
        }
        "/api/v1/namespaces/a/pods/early" => plain(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
        "/api/v1/namespaces/a/pods/echo" => {
            Response::new(request.into_body().map_err(|error| panic!("{error}")).boxed())
        }
        "/api/v1/namespaces/a/pods" if request.uri().query() == Some("watch=1") => Response::new(endless()),
        "/api/v1/namespaces/a/pods/p/exec" => upgrade(request),
        "/api/v1/namespaces/a/pods/forbidden/exec" => plain(StatusCode::FORBIDDEN, "no"),
        "/version" => plain(
            StatusCode::OK,
            r#"{"major":"1","minor":"35","gitVersion":"v1.35.4","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#,
        ),
        "/api/v1/nodes" => plain(
            StatusCode::OK,
            r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"remainingItemCount":2},"items":[{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"n1"}}]}"#,
        ),
        _ => plain(
            StatusCode::FORBIDDEN,
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"may not","reason":"Forbidden","code":403}"#,
        ),
    })
}

fn full(text: &'static str) -> BoxBody<Bytes, Infallible> {
    Full::from(text).boxed()
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    Response::builder().status(status).header("x-served", "yes").body(full(text)).unwrap()
}

/// A watch: one event, and then nothing for ever.
fn endless() -> BoxBody<Bytes, Infallible> {
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"event\n")))]);
    StreamBody::new(futures::StreamExt::chain(first, futures::stream::pending())).boxed()
}

/// Switches protocols and sends back what comes, until the other end closes.
fn upgrade(mut request: Request<Incoming>) -> Answer {
    let protocol = request.headers()["upgrade"].clone();
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = io.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
            if io.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = io.write_all(b" bye").await;
        let _ = io.shutdown().await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .body(full(""))
        .unwrap()
}
