//! Forwarding against a local API server over TLS.
use bytes::Bytes;
use culvert_proto::tunnel::v1::Caller;
use culvert_tunnel::ReplyBody;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::testing::{FakeApi, soon};

fn caller() -> Caller {
    Caller { user: "culvert:anna".to_owned(), groups: vec!["culvert:admins".to_owned()], ..Caller::default() }
}

fn call(kind: Kind, request: Request<Body>) -> Call {
    Call {
        kind,
        request,
        caller: caller(),
        request_id: "req_1".to_owned(),
        traceparent: String::new(),
        deadline: None,
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

struct Site {
    api: FakeApi,
    forwarder: Forwarder,
    policy: watch::Sender<Arc<Policy>>,
}

async fn site(policy: &str) -> Site {
    let api = FakeApi::start().await;
    let (sender, receiver) = watch::channel(Arc::new(Policy::parse(policy).unwrap()));
    let forwarder = Forwarder::new(ApiServer::new(&api.config).unwrap(), receiver);
    Site { api, forwarder, policy: sender }
}

impl Site {
    async fn http(&self, request: Request<Body>) -> Result<Response<ReplyBody>, Failure> {
        match soon("an answer", self.forwarder.handle(call(Kind::Http, request))).await? {
            Reply::Http(response) => Ok(response),
            Reply::Stream { .. } => panic!("a stream for a plain request"),
        }
    }
}

async fn text(response: Response<ReplyBody>) -> String {
    let bytes = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_carries_the_agents_credentials_and_the_callers_name() {
    let mut site = site("").await;
    let request = Request::get("/version?a=%20b")
        .header("authorization", "Bearer stolen")
        .header("impersonate-user", "system:admin")
        .header("host", "elsewhere")
        .body(Body::empty())
        .unwrap();
    let response = site.http(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-served"], "yes");
    assert!(text(response).await.contains("v1.35.4"));
    let asked = site.api.next().await;
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/base/version?a=%20b"));
    assert_eq!(asked.headers["authorization"], "Bearer agents-own");
    assert_eq!(asked.headers["impersonate-user"], "culvert:anna");
    assert_eq!(asked.headers["impersonate-group"], "culvert:admins");
    assert!(asked.headers["host"].to_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn a_body_goes_both_ways_and_an_early_answer_comes_at_once() {
    let site = site("").await;
    let body = "x".repeat(300_000);
    let upload = |path| Request::put(path).body(Body::full(Bytes::from(body.clone()))).unwrap();
    let echoed = site.http(upload("/api/v1/namespaces/a/pods/echo")).await.unwrap();
    assert!(text(echoed).await == body, "the body came back changed");
    let early = site.http(upload("/api/v1/namespaces/a/pods/early")).await.unwrap();
    assert_eq!(early.status(), 413);
    assert_eq!(text(early).await, "too large");
}

#[tokio::test]
async fn rule_11_a_redirect_is_passed_on_and_not_followed() {
    let mut site = site("").await;
    let response = site.http(get("/api/v1/namespaces/a/pods/redirect")).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(text(response).await, "moved");
    site.api.next().await;
    assert!(site.api.asked.try_recv().is_err());
}

#[tokio::test]
async fn an_upgrade_passes_bytes_until_both_ends_close() {
    for protocol in ["SPDY/3.1", "websocket"] {
        let site = site("").await;
        let request = Request::post("/api/v1/namespaces/a/pods/p/exec")
            .header("connection", "Upgrade")
            .header("upgrade", protocol)
            .body(Body::empty())
            .unwrap();
        let reply = soon("an answer", site.forwarder.handle(call(Kind::Upgrade, request))).await.unwrap();
        let Reply::Stream { head, mut io } = reply else { panic!("no stream") };
        assert_eq!(head.status(), 101);
        assert_eq!(head.headers()["upgrade"], protocol);
        io.write_all(b"ping").await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = String::new();
        soon("the echo", io.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "ping bye");
        drop(io);
        assert_eq!(site.forwarder.live.count(), 0);
    }
}

#[tokio::test]
async fn a_refused_upgrade_keeps_its_status() {
    let site = site("").await;
    let request = Request::post("/api/v1/namespaces/a/pods/forbidden/exec")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(Body::empty())
        .unwrap();
    match soon("an answer", site.forwarder.handle(call(Kind::Upgrade, request))).await.unwrap() {
        Reply::Http(response) => assert_eq!(response.status(), 403),
        Reply::Stream { .. } => panic!("a stream after a refusal"),
    }
}

#[tokio::test]
async fn rule_11_the_policy_speaks_before_anything_is_sent() {
    let mut site = site("readOnly: true").await;
    let request = Request::delete("/api/v1/namespaces/a/pods/p").body(Body::empty()).unwrap();
    let failure = site.http(request).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::Denied);
    assert!(failure.message.contains("`readOnly: true`"), "{}", failure.message);
    let mut forged = call(Kind::Http, get("/version"));
    forged.caller.groups.push("system:masters".to_owned());
    assert_eq!(site.forwarder.handle(forged).await.err().unwrap().code, FailureCode::Denied);
    let tcp = site.forwarder.handle(call(Kind::Tcp("db".to_owned()), get("/"))).await.err().unwrap();
    assert_eq!(tcp.code, FailureCode::UnknownTarget);
    assert!(site.api.asked.try_recv().is_err());
    assert_eq!(site.forwarder.live.count(), 0);
}

#[tokio::test]
async fn a_pause_cuts_a_running_watch() {
    let site = site("").await;
    let stop = CancellationToken::new();
    let (enforcer, until) = (site.forwarder.clone(), stop.clone());
    let enforcing = tokio::spawn(async move { enforcer.enforce(until).await });
    let mut body = site.http(get("/api/v1/namespaces/a/pods?watch=1")).await.unwrap().into_body();
    let event = soon("the first event", body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(event, "event\n");
    site.policy.send_replace(Arc::new(Policy::parse("pause: true").unwrap()));
    assert!(soon("the cut", body.frame()).await.unwrap().is_err());
    drop(body);
    let failure = site.http(get("/version")).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::Paused);
    stop.cancel();
    enforcing.await.unwrap();
    assert_eq!(site.forwarder.live.count(), 0);
}

#[tokio::test]
async fn rule_11_a_tcp_target_is_dialled_by_its_name_in_the_policy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = site(&format!("targets: {{db: {{tcp: '{address}'}}}}")).await;
    let served = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut bytes = String::new();
        tcp.read_to_string(&mut bytes).await.unwrap();
        tcp.write_all(b"world").await.unwrap();
        bytes
    });
    let reply =
        soon("an answer", site.forwarder.handle(call(Kind::Tcp("db".to_owned()), get("/")))).await.unwrap();
    let Reply::Stream { mut io, .. } = reply else { panic!("no stream") };
    io.write_all(b"hello").await.unwrap();
    io.shutdown().await.unwrap();
    let mut answer = String::new();
    soon("the answer", io.read_to_string(&mut answer)).await.unwrap();
    assert_eq!((served.await.unwrap().as_str(), answer.as_str()), ("hello", "world"));
}

#[tokio::test]
async fn an_api_server_that_is_gone_or_slow_is_named() {
    let mut config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    config.auth_info = kube::config::AuthInfo::default();
    let (_sender, policy) = watch::channel(Arc::new(Policy::default()));
    let forwarder = Forwarder::new(ApiServer::new(&config).unwrap(), policy);
    let failure = forwarder.handle(call(Kind::Http, get("/version"))).await.err().unwrap();
    assert_eq!(failure.code, FailureCode::Unreachable);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.cluster_url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let (_sender, policy) = watch::channel(Arc::new(Policy::default()));
    let forwarder = Forwarder::new(ApiServer::new(&config).unwrap(), policy);
    let slow = Call { deadline: Some(Duration::from_millis(50)), ..call(Kind::Http, get("/version")) };
    let failure = soon("the deadline", forwarder.handle(slow)).await.err().unwrap();
    assert_eq!(failure.code, FailureCode::Timeout);
}

#[tokio::test]
async fn a_token_file_is_used_and_credential_programs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "rotating\n").unwrap();
    let mut api = FakeApi::start().await;
    api.config.auth_info.token = None;
    api.config.auth_info.token_file = Some(path.display().to_string());
    let (_sender, policy) = watch::channel(Arc::new(Policy::default()));
    let forwarder = Forwarder::new(ApiServer::new(&api.config).unwrap(), policy);
    soon("an answer", forwarder.handle(call(Kind::Http, get("/version")))).await.unwrap();
    assert_eq!(api.next().await.headers["authorization"], "Bearer rotating");

    let kubeconfig = folder.path().join("kubeconfig");
    let text = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: some-program}}}]
";
    std::fs::write(&kubeconfig, text).unwrap();
    let error = kube_config(Some(&kubeconfig)).await.unwrap_err().to_string();
    assert!(error.contains("not supported"), "{error}");
}
