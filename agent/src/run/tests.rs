//! An agent's life against a controller of real parts and a fake API server.
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use culvert_pki::pin::Pin;
use culvert_proto::tunnel::v1::Caller;
use culvert_tunnel::{CallError, CallOptions, FailureCode, Refusal, RefusalCode};
use http_body_util::{BodyExt, Empty};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Carrier, ProxySettings, StatePlace};
use crate::health::{Phase, Status};
use crate::testing::controller::{Controller, Seen};
use crate::testing::{FakeApi, domain, soon, until};

/// A place where an agent runs, and what it needs there.
struct Site {
    folder: TempDir,
    api: FakeApi,
    settings: Settings,
}

struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), Exit>>,
    status_file: PathBuf,
}

fn timing() -> Timing {
    Timing {
        standby_retry: Duration::from_millis(200),
        renew_retry: Duration::from_millis(200),
        refusal_hold: Duration::from_millis(10),
        policy: Duration::from_millis(20),
        ..Timing::default()
    }
}

impl Site {
    async fn new(controller: &Controller, token: Option<&JoinToken>) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let api = FakeApi::start().await;
        let path = |name: &str| folder.path().join(name);
        if let Some(token) = token {
            std::fs::write(path("token"), token.expose().as_bytes()).unwrap();
        }
        std::fs::write(path("policy.yaml"), "").unwrap();
        let settings = Settings {
            controller: controller.address.to_string().parse().unwrap(),
            domain: domain(),
            token_file: Some(path("token")),
            token_secret: None,
            state: StatePlace::Folder(path("state")),
            policy: Some(path("policy.yaml")),
            kubeconfig: Some(api.kubeconfig(folder.path())),
            proxy: None,
            carrier: Carrier::Auto,
            data_services: false,
            figures: crate::telemetry::Addresses::default(),
            status_file: path("status.json"),
            grace: Duration::from_secs(5),
        };
        Site { folder, api, settings }
    }

    fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let ended = tokio::spawn(run(self.settings.clone(), timing(), stop.clone()));
        Running { stop, ended, status_file: self.settings.status_file.clone() }
    }

    fn give_token(&self, token: &JoinToken) {
        std::fs::write(self.folder.path().join("token"), token.expose().as_bytes()).unwrap();
    }

    fn policy(&self, text: &str) {
        std::fs::write(self.folder.path().join("policy.yaml"), text).unwrap();
    }
}

impl Running {
    async fn status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        until(what, async || match health::probe(&self.status_file, false, SystemTime::now()) {
            Ok(status) if wanted(&status) => Ok(status),
            other => Err(format!("{other:?}, ended: {}", self.ended.is_finished())),
        })
        .await
    }

    async fn phase(&self, phase: Phase) -> Status {
        self.status(&format!("{phase:?}"), |status| status.phase == phase).await
    }

    async fn error(&self, code: &str) -> Status {
        self.status(code, |status| status.last_error.as_ref().is_some_and(|error| error.code == code)).await
    }

    async fn stop(self) -> Result<(), Exit> {
        self.stop.cancel();
        soon("the agent's end", self.ended).await.unwrap()
    }
}

async fn get(controller: &Controller, path: &str) -> Result<http::Response<culvert_tunnel::Body>, CallError> {
    let caller = Caller { user: "culvert:anna".to_owned(), ..Caller::default() };
    let request = http::Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    let cluster = controller.hub.cluster(controller.key()).with_caller(caller);
    soon("an answer", cluster.call(request, CallOptions::default())).await
}

fn enrolments(controller: &Controller) -> Vec<Pin> {
    let pin = |seen: Seen| if let Seen::Enrol(pin) = seen { Some(pin) } else { None };
    controller.seen().into_iter().filter_map(pin).collect()
}

#[tokio::test]
async fn an_agent_enrols_once_and_answers_calls() {
    let controller = Controller::start().await;
    let mut site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    let status = agent.phase(Phase::Connected).await;
    assert_eq!(status.cluster_name.as_deref(), Some("plant"));
    let response = get(&controller, "/version").await.unwrap();
    assert_eq!(response.status(), 200);
    let asked = until("the call", async || {
        let asked = site.api.next().await;
        if asked.headers.contains_key("impersonate-user") { Ok(asked) } else { Err(asked.path) }
    })
    .await;
    assert_eq!(asked.headers["impersonate-user"], "culvert:anna");
    agent.stop().await.unwrap();
    let epoch = status.epoch.unwrap();

    std::fs::remove_file(site.folder.path().join("token")).unwrap();
    let again = site.start();
    let status = again.phase(Phase::Connected).await;
    assert!(status.epoch.unwrap() > epoch);
    again.stop().await.unwrap();
    assert_eq!(enrolments(&controller).len(), 1);
}

#[tokio::test]
async fn facts_of_the_cluster_reach_the_controller() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    let facts = until("facts", async || {
        let session = controller.hub.session(controller.key());
        session.and_then(|session| session.facts).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(
        (facts.kubernetes_version.as_str(), facts.nodes, facts.route.as_str()),
        ("v1.35.4", 3, "direct")
    );
    assert!(facts.problem.contains("storage classes: may not"), "{}", facts.problem);
    site.policy("readOnly: true");
    until("the policy's sentence", async || {
        let facts = controller.hub.session(controller.key()).and_then(|session| session.facts);
        let sentence = facts.map(|facts| facts.policy).unwrap_or_default();
        if sentence == "read only" { Ok(()) } else { Err(sentence) }
    })
    .await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_pin_ends_before_anything_is_sent() {
    let controller = Controller::start().await;
    let other = Controller::start().await;
    let site = Site::new(&controller, Some(&other.token())).await;
    let agent = site.start();
    let status = agent.error("wrong_pin").await;
    assert_eq!(status.phase, Phase::Enrolling);
    agent.stop().await.unwrap();
    assert!(controller.seen().is_empty());
}

#[tokio::test]
async fn a_used_token_ends_the_process_with_its_cause() {
    let controller = Controller::start().await;
    let token = controller.token();
    let first = Site::new(&controller, Some(&token)).await;
    let agent = first.start();
    agent.phase(Phase::Connected).await;
    let second = Site::new(&controller, Some(&token)).await;
    let exit = soon("the refusal", second.start().ended).await.unwrap().unwrap_err();
    assert_eq!(exit.code(), 4);
    assert!(matches!(exit, Exit::Refused(cause) if cause.code == "token_used"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_broken_or_missing_token_ends_before_the_network() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, None).await;
    let exit = soon("the end", site.start().ended).await.unwrap().unwrap_err();
    assert_eq!(exit.code(), 64);
    let text = controller.token().expose().replace("cvj1.", "cvj1.x");
    std::fs::write(site.folder.path().join("token"), &text).unwrap();
    let exit = soon("the end", site.start().ended).await.unwrap().unwrap_err();
    assert_eq!(exit.code(), 64);
    assert!(!exit.to_string().contains(&text[10..30]), "{exit}");
    site.policy("paws: true");
    let exit = soon("the end", site.start().ended).await.unwrap().unwrap_err();
    assert!(exit.to_string().contains("paws"), "{exit}");
    assert!(controller.seen().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let controller = Controller::start().await;
    *controller.shared.lose.lock().unwrap() = u32::MAX;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    agent.error("controller_failed").await;
    // As if killed between request and answer: what is stored must be enough.
    agent.ended.abort();
    assert!(agent.ended.await.unwrap_err().is_cancelled());
    *controller.shared.lose.lock().unwrap() = 0;
    let again = site.start();
    again.phase(Phase::Connected).await;
    again.stop().await.unwrap();
    let keys = enrolments(&controller);
    assert!(keys.len() >= 2 && keys.iter().all(|key| Some(key) == keys.first()), "{keys:?}");
}

#[tokio::test]
async fn a_renewal_changes_the_connection_without_a_gap() {
    let controller = Controller::start().await;
    *controller.shared.lifetime.lock().unwrap() = Duration::from_secs(6);
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    let first = agent.phase(Phase::Connected).await.epoch.unwrap();
    let mut watch = get(&controller, "/api/v1/namespaces/a/pods?watch=1").await.unwrap().into_body();
    soon("the first event", watch.frame()).await.unwrap().unwrap();
    let mut calls = 0;
    until("a second session", async || {
        calls += 1;
        get(&controller, "/version").await.map_err(|error| panic!("call {calls} failed: {error}")).ok();
        let epoch = controller.hub.session(controller.key()).map(|session| session.epoch);
        if epoch > Some(first) { Ok(()) } else { Err(format!("{epoch:?} after {calls} calls")) }
    })
    .await;
    get(&controller, "/version").await.unwrap();
    assert!(
        futures::poll!(std::pin::pin!(watch.frame())).is_pending(),
        "the watch on the old connection was cut"
    );
    let seen = controller.seen();
    let (Some(Seen::Enrol(old)), Some(Seen::Renew(new))) = (seen.first(), seen.get(1)) else {
        panic!("{seen:?}")
    };
    assert_ne!(old, new, "a renewal must use a new key");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn the_controller_can_ask_for_a_renewal() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    agent.phase(Phase::Connected).await;
    controller.hub.renew(controller.key());
    until("a renewal", async || match controller.seen().last() {
        Some(Seen::Renew(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn after_expiry_the_key_alone_brings_the_agent_back() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    agent.phase(Phase::Connected).await;
    agent.stop().await.unwrap();
    {
        let store = Store::open(&site.settings.state, || panic!("no cluster is needed")).unwrap();
        let keeper = Keeper::open(store).await.map_err(|(_, error)| error).unwrap();
        let past = |state: &mut identity::State| {
            state.identity.as_mut().unwrap().not_after = SystemTime::UNIX_EPOCH;
            Ok(())
        };
        keeper.update(past).await.unwrap();
    }
    let back = site.start();
    back.phase(Phase::Connected).await;
    assert!(matches!(controller.seen().last(), Some(Seen::Rejoin(_))), "{:?}", controller.seen());
    back.stop().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_behind_does_not_hide_the_expiry() {
    let controller = Controller::start().await;
    *controller.shared.lifetime.lock().unwrap() = Duration::from_secs(2);
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    agent.phase(Phase::Connected).await;
    agent.stop().await.unwrap();
    let store = Store::open(&site.settings.state, || panic!("no cluster is needed")).unwrap();
    let keeper = Keeper::open(store).await.map_err(|(_, error)| error).unwrap();
    let end = keeper.state().await.identity.unwrap().not_after;
    // By this agent's clock the certificate has an hour.
    let later = |state: &mut identity::State| {
        state.identity.as_mut().unwrap().not_after = end + Duration::from_secs(3600);
        Ok(())
    };
    keeper.update(later).await.unwrap();
    drop(keeper);
    *controller.shared.lifetime.lock().unwrap() = Duration::from_secs(3600);
    // A certificate is valid to the end of its last second.
    let left = || (end + Duration::from_secs(1)).duration_since(SystemTime::now());
    until("the expiry", async || left().map_or(Ok(()), |left| Err(format!("{left:?} left")))).await;
    let back = site.start();
    back.phase(Phase::Connected).await;
    assert!(matches!(controller.seen().last(), Some(Seen::Rejoin(_))), "{:?}", controller.seen());
    back.stop().await.unwrap();
}

#[tokio::test]
async fn two_holders_of_one_identity_do_not_fight() {
    let controller = Controller::start().await;
    let first = Site::new(&controller, Some(&controller.token())).await;
    let one = first.start();
    one.phase(Phase::Connected).await;
    let second = Site::new(&controller, None).await;
    let state = second.folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::copy(first.folder.path().join("state/identity.json"), state.join("identity.json")).unwrap();
    let two = second.start();
    two.phase(Phase::Connected).await;
    one.phase(Phase::Standby).await;
    let status = one.error("standby").await;
    assert!(status.judge(true, SystemTime::now()).is_ok(), "an agent in reserve is ready");
    let held = controller.hub.session(controller.key()).unwrap();
    two.stop().await.unwrap();
    let status = one.phase(Phase::Connected).await;
    assert!(status.epoch.unwrap() > held.epoch);
    one.stop().await.unwrap();
}

#[tokio::test]
async fn a_lock_is_waited_out_and_a_revocation_is_not() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let soon_again = Refusal::new(RefusalCode::Overloaded, "wait").after(Duration::from_millis(50));
    controller.refuse(Some(soon_again));
    let agent = site.start();
    agent.error("overloaded").await;
    controller.refuse(None);
    agent.phase(Phase::Connected).await;
    let gone = Refusal::new(RefusalCode::Revoked, "the cluster was deleted");
    controller.refuse(Some(gone.clone()));
    controller.hub.cut(controller.key(), gone);
    let exit = soon("the end", agent.ended).await.unwrap().unwrap_err();
    assert!(matches!(&exit, Exit::Refused(cause) if cause.code == "revoked"), "{exit}");

    // A new token brings the refused agent back.
    controller.refuse(None);
    site.give_token(&controller.token());
    controller.refuse(Some(Refusal::new(RefusalCode::Revoked, "the cluster was deleted")));
    let again = site.start();
    until("a second enrolment", async || match enrolments(&controller).len() {
        2 => Ok(()),
        count => Err(format!("{count} enrolments")),
    })
    .await;
    controller.refuse(None);
    again.stop.cancel();
    let _ = soon("the end", again.ended).await.unwrap();
}

#[tokio::test]
async fn the_policy_file_wins_over_the_controller() {
    let controller = Controller::start().await;
    let site = Site::new(&controller, Some(&controller.token())).await;
    let agent = site.start();
    agent.phase(Phase::Connected).await;
    let mut watch = get(&controller, "/api/v1/namespaces/a/pods?watch=1").await.unwrap().into_body();
    soon("the first event", watch.frame()).await.unwrap().unwrap();
    site.policy("pause: true");
    let cut = soon("the cut", watch.frame()).await;
    assert!(!matches!(cut, Some(Ok(_))), "{cut:?}");
    match get(&controller, "/version").await {
        Err(CallError::Failure(failure)) => assert_eq!(failure.code, FailureCode::Paused),
        other => panic!("{:?}", other.map(|response| response.status())),
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_controller_that_is_not_there_is_named_and_waited_for() {
    let controller = Controller::start().await;
    let mut site = Site::new(&controller, Some(&controller.token())).await;
    site.settings.controller.port = 1;
    let agent = site.start();
    agent.error("connect").await;
    agent.stop().await.unwrap();
    site.settings.controller.host = "no-such-host.invalid".to_owned();
    let agent = site.start();
    agent.error("dns").await;
    agent.stop().await.unwrap();
}

/// Takes one connection after the other, and answers each with the same text.
async fn answering(text: &'static str) -> (u16, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            // The client may be gone already; the next one is served.
            let _ = tcp.read(&mut [0; 4096]).await;
            let _ = tcp.write_all(text.as_bytes()).await;
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn what_stands_between_agent_and_controller_is_named() {
    let controller = Controller::start().await;
    let site = async || Site::new(&controller, Some(&controller.token())).await;

    // Anybody's TLS but the controller's.
    let mut intercepted = site().await;
    intercepted.settings.controller.port = intercepted.api.config.cluster_url.port_u16().unwrap();
    let agent = intercepted.start();
    let error = agent.error("tls_intercepted").await.last_error.unwrap();
    assert!(error.why.contains("issued by"), "{error:?}");
    agent.stop().await.unwrap();

    let (port, _tasks) = answering("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let mut plain = site().await;
    plain.settings.controller.port = port;
    let agent = plain.start();
    agent.error("not_tls").await;
    agent.stop().await.unwrap();

    for (answer, code) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy_auth"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "proxy_refused"),
    ] {
        let (port, _tasks) = answering(answer).await;
        let mut proxied = site().await;
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let credentials = Some(("anna".to_owned(), "hush".to_owned().into()));
        proxied.settings.proxy = Some(ProxySettings { tls: false, address, credentials, ca_pem: None });
        let agent = proxied.start();
        let status = agent.error(code).await;
        assert!(!format!("{status:?}").contains("hush"));
        agent.stop().await.unwrap();
    }
    assert!(controller.seen().is_empty());
}
