//! A controller for tests: real TLS under a real CA, real HTTP, answers as recorded.
//!
//! It speaks the shapes of the REST API and nothing of its rules: what a test
//! wants answered, it says; a request that nobody foresaw is answered 404 and can
//! be seen in `requests`. What the command asks and what a test answers must be
//! what the API's document says ([`contract`]): a test that strays from it fails.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test that cannot go on stops")]

mod contract;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assert_cmd::Command;
use culvert_pki::authority::Authority;
use culvert_pki::key::KeyPair;
use culvert_pki::name::{Purpose, TrustDomain};
use culvert_pki::token::BearerToken;
use culvert_pki::{pem, tls};
use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::time_provider::DefaultTimeProvider;
use time::OffsetDateTime;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
    /// Pieces of a stream, each after a pause; the stream then stays open.
    pub(crate) pieces: Option<Vec<(Duration, String)>>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        let kind = if status >= 400 { "application/problem+json" } else { "application/json" };
        Self { status, kind, body: body.into(), pieces: None, headers: Vec::new() }
    }

    pub(crate) fn problem(status: u16, code: &str, title: &str) -> Self {
        let body = serde_json::json!({
            "type": "about:blank", "title": title, "status": status, "detail": format!("{title}, in detail"),
            "code": code, "request_id": "req_test", "errors": [],
        });
        Self::json(status, body.to_string())
    }

    pub(crate) fn yaml(body: impl Into<String>) -> Self {
        Self { status: 200, kind: "application/yaml", body: body.into(), pieces: None, headers: Vec::new() }
    }

    pub(crate) fn stream(pieces: &[(u64, &str)]) -> Self {
        let pieces =
            pieces.iter().map(|(ms, text)| (Duration::from_millis(*ms), (*text).to_owned())).collect();
        Self {
            status: 200,
            kind: "text/event-stream",
            body: String::new(),
            pieces: Some(pieces),
            headers: Vec::new(),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let faults = std::mem::take(&mut self.script.lock().unwrap().faults);
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "not as the API's document says: {faults:#?}");
        }
    }
}

type Handler = Box<dyn FnMut(&Seen) -> Reply + Send>;

#[derive(Default)]
struct Script {
    routes: HashMap<String, Handler>,
    requests: Vec<Seen>,
    faults: Vec<String>,
}

/// The controller, and a home for the command.
pub(crate) struct Site {
    script: Arc<Mutex<Script>>,
    pub(crate) address: SocketAddr,
    pub(crate) pin: String,
    pub(crate) ca_pem: String,
    pub(crate) home: tempfile::TempDir,
    pub(crate) token: String,
    _runtime: tokio::runtime::Runtime,
}

/// A recorded answer.
pub(crate) fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Site {
    /// A site whose certificate names `localhost` and 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::named(&["culvert.internal", "localhost", "127.0.0.1"])
    }

    /// A site whose certificate has these names.
    pub(crate) fn named(names: &[&str]) -> Self {
        // A second installation is refused, and the first one is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let now = OffsetDateTime::now_utc();
        let domain: TrustDomain = "culvert.internal".parse().unwrap();
        let root = Authority::root(&domain, now).unwrap();
        let servers = root.intermediate(Purpose::Servers, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = servers
            .issue_server(&names, &key.verified_key().unwrap(), now, time::Duration::hours(1))
            .unwrap();
        let chain = vec![leaf.certificate.clone(), servers.certificate().clone(), root.certificate().clone()];
        let clock: tls::Clock = Arc::new(DefaultTimeProvider);
        let alpn: &[&[u8]] = &[b"http/1.1"];
        let config = tls::server_config(chain, &key, tls::ClientAuth::None, alpn, clock).unwrap();

        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        runtime.spawn(accept(listener, acceptor, Arc::clone(&script)));
        let site = Self {
            script,
            address,
            pin: root.pin().to_string(),
            ca_pem: pem::certificates_to_pem([root.certificate()]),
            home: tempfile::tempdir().unwrap(),
            token: BearerToken::generate_session().unwrap().expose().to_string(),
            _runtime: runtime,
        };
        site.answer("GET", "/api/v1/info", Reply::json(200, site.info()));
        site.answer("GET", "/api/v1/me", Reply::json(200, recorded("me.json")));
        site
    }

    fn info(&self) -> String {
        serde_json::json!({
            "product": "culvert", "version": env!("CARGO_PKG_VERSION"), "domain": "culvert.internal",
            "public_address": self.address.to_string(),
            "api": {"server_name": "culvert.internal"},
            "agents": {"address": self.address.to_string(), "server_name": "agents.culvert.internal"},
            "gateway": {"address": self.address.to_string(), "server_name": "kube.culvert.internal"},
            "ca": {"pem": self.ca_pem, "pin": self.pin}, "time": "2026-11-23T18:00:00Z",
        })
        .to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.address.port())
    }

    /// Answers a request always like this.
    pub(crate) fn answer(&self, method: &str, path: &str, reply: Reply) {
        self.handle(method, path, move |_| reply.clone());
    }

    /// Answers a request by a rule.
    pub(crate) fn handle(&self, method: &str, path: &str, rule: impl FnMut(&Seen) -> Reply + Send + 'static) {
        self.script.lock().unwrap().routes.insert(format!("{method} {path}"), Box::new(rule));
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.script.lock().unwrap().requests.clone()
    }

    /// How often this was asked.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.requests().iter().filter(|seen| seen.method == method && seen.path == path).count()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home.path().join("culvert/config.toml")
    }

    /// The command in this site's home, with nothing of this process's environment.
    pub(crate) fn culvert(&self, arguments: &[&str]) -> Command {
        let mut command = culvert(arguments);
        command.env("HOME", self.home.path()).env("CULVERT_CONFIG", self.config());
        command
    }

    /// Signs in by writing what a sign-in would have written.
    pub(crate) fn signed_in(&self) -> &Self {
        self.with_token(&self.token)
    }

    pub(crate) fn with_token(&self, token: &str) -> &Self {
        let text = format!(
            "current = \"site\"\n\n[contexts.site]\nurl = \"{}\"\npin = \"{}\"\nuser = \"ada\"\n\
             organisation = \"Example\"\nca_pem = \"\"\"\n{}\"\"\"\n",
            self.url(),
            self.pin,
            self.ca_pem
        );
        let tokens = self.config().with_extension("tokens");
        std::fs::create_dir_all(&tokens).unwrap();
        std::fs::write(self.config(), text).unwrap();
        write_private(&tokens.join("site"), token);
        self
    }
}

/// The command without any environment.
pub(crate) fn culvert(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("culvert"));
    command.env_clear().args(arguments).timeout(Duration::from_secs(60));
    command
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Waits for something to become true, and says what was seen last if it does not.
pub(crate) fn wait_for<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let (done, seen) = look();
        if done {
            return;
        }
        assert!(std::time::Instant::now() < until, "{what} did not happen; last seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    script: Arc<Mutex<Script>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
        tokio::spawn(async move {
            // A client that refuses the certificate ends here, as it should.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| respond(request, Arc::clone(&script)));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = {
        let mut script = script.lock().unwrap();
        script.requests.push(seen.clone());
        match script.routes.get_mut(&format!("{} {}", seen.method, seen.path)) {
            Some(rule) => {
                let reply = rule(&seen);
                script.faults.extend(contract::faults(&seen, &reply));
                reply
            }
            None => Reply::problem(404, "not_found", "not found"),
        }
    };
    let mut response = Response::builder()
        .status(reply.status)
        .header("content-type", reply.kind)
        .header("x-request-id", "req_test")
        .header("date", httpdate());
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let body = match reply.pieces {
        None => Full::new(Bytes::from(reply.body)).boxed(),
        Some(pieces) => {
            let pieces = futures::stream::iter(pieces).then(|(pause, text)| async move {
                tokio::time::sleep(pause).await;
                Ok(Frame::data(Bytes::from(text)))
            });
            BodyExt::boxed(StreamBody::new(Box::pin(pieces.chain(futures::stream::pending())) as Pieces))
        }
    };
    Ok(response.body(body).unwrap())
}

type Pieces = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>;

fn httpdate() -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    OffsetDateTime::now_utc().format(&format).unwrap()
}
