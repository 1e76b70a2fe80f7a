//! A whole controller in this process, and clients for its doors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_controller::app::{App, Clock};
use culvert_controller::config::Config;
use culvert_controller::run::{Listeners, RunError, run};
use culvert_pki::key::KeyPair;
use culvert_pki::pem::certificates_from_pem;
use culvert_pki::tls::{ClientIdentity, trusted_client};
use culvert_pki::verify::Roots;
use culvert_pki::{csr, pem};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::DefaultTimeProvider;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const API: &str = "culvert.internal";
pub const GATEWAY: &str = "kube.culvert.internal";
pub const AGENTS: &str = "agents.culvert.internal";

pub struct World {
    _folder: tempfile::TempDir,
    pub data: PathBuf,
    pub address: SocketAddr,
    pub ops: SocketAddr,
    pub roots: Roots,
    session: String,
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

/// A person's certificate for the gateway.
pub struct Person {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

pub fn init() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = std::env::var("CULVERT_TEST_LOG").unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

impl World {
    pub async fn start() -> World {
        init();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let flags = [
            ("data_dir", data.display().to_string()),
            ("listen", "127.0.0.1:0".to_owned()),
            ("ops.listen", "127.0.0.1:0".to_owned()),
            ("bootstrap.code_file", folder.path().join("code").display().to_string()),
            ("shutdown.grace_seconds", "5".to_owned()),
            ("limits.connections_per_address", "1000".to_owned()),
        ];
        let config = Config::load(None, [], &flags).unwrap();
        let listeners = Listeners::bind(&config).await.unwrap();
        let (address, ops) = (listeners.doors.local_addr().unwrap(), listeners.ops.local_addr().unwrap());
        let stop = CancellationToken::new();
        let opened = App::open(&config, None, Clock::system()).await.unwrap();
        let roots = opened.app.roots().clone();
        opened.app.close().await.unwrap();
        let running = tokio::spawn(run(config, listeners, stop.clone()));
        let mut world =
            World { _folder: folder, data, address, ops, roots, session: String::new(), stop, running };
        world.session = world.sign_in().await;
        world
    }

    async fn sign_in(&self) -> String {
        let file = self._folder.path().join("code");
        // The first opening wrote a code too; the controller's own comes after it.
        let asked = async {
            loop {
                let code = tokio::fs::read_to_string(&file).await.unwrap_or_default();
                let (status, body) =
                    self.api(Method::POST, "/sessions", Some(json!({ "code": code.trim() }))).await;
                if status == StatusCode::CREATED {
                    return body["token"].as_str().unwrap().to_owned();
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("nobody could sign in")
    }

    pub fn trusting(&self, identity: Option<ClientIdentity<'_>>, alpn: &[u8]) -> Arc<ClientConfig> {
        Arc::new(trusted_client(&self.roots, identity, &[alpn], Arc::new(DefaultTimeProvider)).unwrap())
    }

    pub async fn tls(&self, name: &str, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        TlsConnector::from(config).connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await
    }

    /// One request on a connection of its own, HTTP/1.1.
    pub async fn send(
        &self,
        name: &str,
        config: Arc<ClientConfig>,
        request: Request<Full<Bytes>>,
    ) -> Response<Incoming> {
        let stream = self.tls(name, config).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver.with_upgrades());
        timeout(PATIENCE, sender.send_request(request)).await.expect("no answer in time").unwrap()
    }

    /// A request to the API, in the name of the first administrator.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}")).header("host", API);
        if !self.session.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.session));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let answer =
            self.send(API, self.trusting(None, b"http/1.1"), request.body(body.into()).unwrap()).await;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn make(&self, path: &str, body: Value) -> Value {
        let (status, made) = self.api(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {made}");
        made
    }

    /// A cluster and a join token for it.
    pub async fn cluster(&self, name: &str) -> (String, String) {
        let id = self.make("/clusters", json!({ "name": name })).await["id"].as_str().unwrap().to_owned();
        let token = self.join_token(&id).await;
        (id, token)
    }

    pub async fn join_token(&self, cluster: &str) -> String {
        let made = self.make(&format!("/clusters/{cluster}/join-tokens"), json!({})).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// The newest attempt of a cluster, once it is `code`.
    pub async fn attempt(&self, cluster: &str, code: &str) -> Value {
        let mut last = Value::Null;
        let asked = async {
            loop {
                let (_, diagnosis) =
                    self.api(Method::GET, &format!("/clusters/{cluster}/diagnosis"), None).await;
                last = diagnosis["attempts"][0].clone();
                if last["code"] == code {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let seen = timeout(PATIENCE, asked).await;
        assert!(seen.is_ok(), "the newest attempt never became {code}; it is {last}");
        last
    }

    pub async fn person(&self) -> Person {
        let key = KeyPair::generate().unwrap();
        let request = pem::request_to_pem(&csr::make(&key).unwrap());
        let made = self.make("/certificates", json!({ "csr_pem": request })).await;
        let chain = certificates_from_pem(made["certificate_pem"].as_str().unwrap()).unwrap();
        Person { chain, key }
    }

    /// As [`World::as_person`], over HTTP/2, as kubectl does all but upgrades.
    pub async fn as_person_2(&self, person: &Person, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let identity = ClientIdentity { chain: &person.chain, key: &person.key };
        let stream = self.tls(GATEWAY, self.trusting(Some(identity), b"h2")).await.unwrap();
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        let (mut parts, body) = request.into_parts();
        parts.headers.remove("host");
        parts.uri = format!("https://{GATEWAY}{}", parts.uri).parse().unwrap();
        let request = Request::from_parts(parts, body);
        timeout(PATIENCE, sender.send_request(request)).await.expect("no answer in time").unwrap()
    }

    pub async fn as_person(&self, person: &Person, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let identity = ClientIdentity { chain: &person.chain, key: &person.key };
        self.send(GATEWAY, self.trusting(Some(identity), b"http/1.1"), request).await
    }

    pub async fn audit(&self) -> Vec<Value> {
        let text = tokio::fs::read_to_string(self.data.join("audit/gateway.jsonl")).await.unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The audit's lines about a path, once there is one of the stage.
    pub async fn audited(&self, path: &str, stage: &str) -> Value {
        let mut lines = Vec::new();
        let asked = async {
            loop {
                lines = self.audit().await;
                if let Some(line) = lines.iter().find(|l| l["path"] == path && l["stage"] == stage) {
                    return line.clone();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let seen = timeout(PATIENCE, asked).await;
        seen.unwrap_or_else(|_| panic!("no line {stage} of {path}: {lines:#?}"))
    }

    pub async fn ops(&self, path: &str) -> (StatusCode, String) {
        let tcp = TcpStream::connect(self.ops).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(driver);
        let request = Request::get(path).header("host", "ops").body(Full::<Bytes>::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    pub async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("the controller did not stop in time").unwrap()
    }
}

pub async fn text(answer: Response<Incoming>) -> String {
    let bytes = timeout(PATIENCE, answer.into_body().collect())
        .await
        .expect("the body did not end")
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn body(answer: Response<Incoming>) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", GATEWAY).body(Full::default()).unwrap()
}
