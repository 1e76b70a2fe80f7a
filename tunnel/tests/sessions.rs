//! Sessions: who may have one, which one counts, how one ends, and what a hostile
//! or foreign agent can do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod site;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_proto::tunnel::v1::control_up::Kind as Up;
use culvert_proto::tunnel::v1::tunnel_client::TunnelClient;
use culvert_tunnel::{
    Admission, Admitted, AgentKey, CallError, CallOptions, Ended, Hub, Limits, Link, LinkEnd, Peer, Refusal,
    RefusalCode, Reply, SessionEvent, Signal,
};
use http_body_util::BodyExt as _;
use site::{Does, Open, PATIENCE, Site, fed, get, hello, key, limits, none, peer, say, until};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What a handler does with a call.
type Doing = futures::future::BoxFuture<'static, Result<Reply, culvert_tunnel::Failure>>;

fn hub() -> Hub {
    Hub::new("replica".into(), limits())
}

fn of(instance: u8) -> proto::Hello {
    proto::Hello { instance: vec![instance; 16].into(), ..hello() }
}

fn ok()
-> Does<impl Fn(culvert_tunnel::Call) -> std::future::Ready<Result<Reply, culvert_tunnel::Failure>> + Clone> {
    Does(|_| std::future::ready(say("ok")))
}

/// Streams `first`, and then whatever is fed.
async fn begin_stream(site: &Site) -> http::Response<culvert_tunnel::Body> {
    let request = http::Request::get("/").body(String::new()).unwrap();
    let mut response = site.cluster().call(request, CallOptions::default()).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    response
}

fn streams() -> (mpsc::Sender<()>, Does<impl Fn(culvert_tunnel::Call) -> Doing + Clone>) {
    streaming(Bytes::from_static(b"last"))
}

fn streaming(last: Bytes) -> (mpsc::Sender<()>, Does<impl Fn(culvert_tunnel::Call) -> Doing + Clone>) {
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = std::sync::Arc::new(tokio::sync::Mutex::new(gone));
    let handler = Does(move |_| {
        let (gone, last) = (gone.clone(), last.clone());
        futures::FutureExt::boxed(async move {
            let (feed, response) = fed();
            tokio::spawn(async move {
                feed.send(Bytes::from_static(b"first")).await.unwrap();
                gone.lock().await.recv().await;
                feed.send(last).await.unwrap();
            });
            Ok(Reply::Http(response))
        })
    });
    (go, handler)
}

#[tokio::test]
async fn a_session_is_seen_from_the_hub() {
    let hub = hub();
    let mut events = hub.events();
    let mut site = Site::with(&hub, limits(), proto::Hello { last_epoch: 41, ..hello() }, ok()).await;
    let info = hub.session(key()).unwrap();
    assert_eq!((info.epoch, info.version.as_str(), info.instance, info.fresh), (42, "0.1.0", [7; 16], true));
    assert!(matches!(events.recv().await, Ok(SessionEvent::Connected(info)) if info.epoch == 42));
    let facts = proto::Facts { nodes: 3, ..Default::default() };
    site.facts.send(Some(facts.clone())).unwrap();
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert!(matches!(heard, Ok(SessionEvent::Facts(info)) if info.facts == Some(facts)));
    assert_eq!(site.get("/").await.unwrap(), "ok");
    hub.renew(key());
    let heard = timeout(PATIENCE, async {
        loop {
            match site.signals.recv().await {
                Some(Signal::Beat { .. }) => {}
                other => break other,
            }
        }
    });
    assert_eq!(heard.await.unwrap(), Some(Signal::Renew));
    site.stop_agent.cancel();
    assert_eq!(timeout(PATIENCE, site.agent).await.unwrap().unwrap(), LinkEnd::Stopped);
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert!(matches!(heard, Ok(SessionEvent::Disconnected { epoch: 42, .. })), "{heard:?}");
    assert_eq!(hub.counts().sessions, 0);
    assert_eq!(hub.counts().calls, 1);
}

#[tokio::test]
async fn rule_9_the_same_process_takes_over_without_losing_a_call() {
    let hub = hub();
    let (go, handler) = streams();
    let old = Site::with(&hub, limits(), hello(), handler).await;
    let running = begin_stream(&old).await;
    let new = Site::with(&hub, limits(), proto::Hello { last_epoch: 1, ..hello() }, ok()).await;
    assert_eq!(hub.session(key()).unwrap().epoch, 2);
    assert_eq!(new.get("/").await.unwrap(), "ok", "new calls go to the new session");
    assert!(!old.agent.is_finished(), "the old one still has a call");
    go.send(()).await.unwrap();
    assert_eq!(timeout(PATIENCE, running.into_body().collect()).await.unwrap().unwrap().to_bytes(), "last");
    let end = timeout(PATIENCE, old.agent).await.expect("an empty old session ends").unwrap();
    assert_eq!(end, LinkEnd::Superseded { same_instance: true, from: "192.0.2.1:1000".into() });
    assert_eq!(new.get("/").await.unwrap(), "ok");
}

#[tokio::test]
async fn rule_9_another_process_takes_over_and_the_old_calls_are_cut() {
    let hub = hub();
    let mut events = hub.events();
    let (_go, handler) = streams();
    let old = Site::with(&hub, limits(), of(1), handler).await;
    let running = begin_stream(&old).await;
    let new = Site::with(&hub, limits(), of(2), ok()).await;
    timeout(PATIENCE, running.into_body().collect()).await.unwrap().expect_err("the call is cut");
    let end = timeout(PATIENCE, old.agent).await.unwrap().unwrap();
    assert_eq!(end, LinkEnd::Superseded { same_instance: false, from: "192.0.2.1:1000".into() });
    assert_eq!(timeout(PATIENCE, old.served).await.unwrap().unwrap(), Ended::Superseded { by_epoch: 2 });
    assert_eq!(new.get("/").await.unwrap(), "ok");
    let told = std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event, SessionEvent::Duplicate { .. }));
    assert!(told, "it is told");
}

#[tokio::test]
async fn rule_9_the_next_process_of_one_place_takes_over_without_losing_a_call() {
    let hub = hub();
    let mut events = hub.events();
    let place = |instance| proto::Hello { place: Bytes::from_static(b"a Secret"), ..of(instance) };
    let (go, handler) = streams();
    let mut old = Site::with(&hub, limits(), place(1), handler).await;
    let running = begin_stream(&old).await;
    let new = Site::with(&hub, limits(), place(2), ok()).await;
    assert_eq!(new.get("/").await.unwrap(), "ok", "new calls go to the new one");
    let told = async { while old.signals.recv().await != Some(Signal::HandedOver) {} };
    timeout(PATIENCE, told).await.expect("the old one is told");
    assert!(!old.agent.is_finished(), "the old one still has a call");
    go.send(()).await.unwrap();
    assert_eq!(timeout(PATIENCE, running.into_body().collect()).await.unwrap().unwrap().to_bytes(), "last");
    let end = timeout(PATIENCE, old.agent).await.expect("an empty old session ends").unwrap();
    assert_eq!(end, LinkEnd::HandedOver { from: "192.0.2.1:1000".into() });
    let noted = std::iter::from_fn(|| events.try_recv().ok())
        .any(|event| matches!(event, SessionEvent::Duplicate { .. }));
    assert!(!noted, "a rolling update is no copied identity");
    // In reserve it waits, and a copy that lies elsewhere is told from it.
    let reserve = Site::start(&hub, limits(), proto::Hello { standby: true, ..place(1) }, ok()).await;
    let refused = timeout(PATIENCE, reserve.agent).await.unwrap().unwrap();
    assert!(matches!(&refused, LinkEnd::Refused(why) if why.code == RefusalCode::Standby), "{refused:?}");
    let copy = proto::Hello { place: Bytes::from_static(b"another Secret"), ..of(3) };
    let _copy = Site::with(&hub, limits(), copy, ok()).await;
    let end = timeout(PATIENCE, new.agent).await.unwrap().unwrap();
    assert!(matches!(end, LinkEnd::Superseded { same_instance: false, .. }), "{end:?}");
}

/// A session that was taken over ends with its last call, and the end of a session must
/// not overtake what that call still has in HTTP/2's own queue.
#[tokio::test]
async fn rule_6_what_an_agent_answered_last_arrives_although_its_session_has_ended() {
    let hub = hub();
    let length = limits().stream_window as usize / 2;
    let (go, handler) = streaming(Bytes::from(vec![7; length]));
    let (near, far) = tokio::io::duplex(4 << 10);
    let mut old = Site::over(&hub, near, far, limits(), hello(), handler).await;
    assert!(matches!(timeout(PATIENCE, old.signals.recv()).await, Ok(Some(Signal::Welcome(_)))));
    let running = begin_stream(&old).await;
    let new = Site::with(&hub, limits(), hello(), ok()).await;
    assert_eq!(new.get("/").await.unwrap(), "ok");
    go.send(()).await.unwrap();
    let body = timeout(PATIENCE, running.into_body().collect()).await.expect("it ends");
    assert_eq!(body.expect("nothing is missing").to_bytes().len(), length);
    let end = timeout(PATIENCE, old.agent).await.expect("an empty old session ends").unwrap();
    assert!(matches!(end, LinkEnd::Superseded { same_instance: true, .. }), "{end:?}");
    let ended = timeout(PATIENCE, old.served).await.expect("so does its connection").unwrap();
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn rule_9_a_reserve_waits_while_another_session_lives() {
    let hub = hub();
    let first = Site::with(&hub, limits(), of(1), ok()).await;
    let reserve = || proto::Hello { standby: true, ..of(2) };
    let refused = Site::start(&hub, limits(), reserve(), ok()).await;
    let end = timeout(PATIENCE, refused.agent).await.unwrap().unwrap();
    assert!(matches!(&end, LinkEnd::Refused(refusal) if refusal.code == RefusalCode::Standby), "{end:?}");
    assert_eq!(first.get("/").await.unwrap(), "ok");
    first.agent.abort();
    timeout(PATIENCE, first.served).await.unwrap().unwrap();
    let second = Site::with(&hub, limits(), reserve(), ok()).await;
    assert_eq!(second.get("/").await.unwrap(), "ok");
}

struct No;

impl Admission for No {
    async fn admit(&self, _: AgentKey, _: &proto::Hello, _: SocketAddr) -> Result<Admitted, Refusal> {
        Err(Refusal::new(RefusalCode::Locked, "locked by ada: audit").after(Duration::from_secs(30)))
    }
}

async fn link(
    hub: &Hub,
    peer: Peer,
    admission: impl Admission,
    limits: Limits,
) -> (Link, tokio::task::JoinHandle<Ended>) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let hub = hub.clone();
    let served =
        tokio::spawn(async move { hub.serve(near, peer, admission, none(), CancellationToken::new()).await });
    (Link::start(far, limits).await.unwrap(), served)
}

async fn run(link: &Link, hello: proto::Hello) -> LinkEnd {
    let (signals, _hear) = mpsc::channel(64);
    let (_facts, seen) = watch::channel(None);
    timeout(PATIENCE, link.run(hello, ok(), seen, signals, CancellationToken::new())).await.unwrap()
}

#[tokio::test]
async fn rule_8_a_refusal_says_why_and_when_to_come_back() {
    let hub = hub();
    let (refused, served) = link(&hub, peer(), No, limits()).await;
    let end = run(&refused, hello()).await;
    let want = Refusal::new(RefusalCode::Locked, "locked by ada: audit").after(Duration::from_secs(30));
    assert_eq!(end, LinkEnd::Refused(want.clone()));
    refused.close().await;
    assert_eq!(timeout(PATIENCE, served).await.unwrap().unwrap(), Ended::Refused(want));
    // The agent waits as long, and up to half as much again.
    let LinkEnd::Refused(refusal) = end else { unreachable!() };
    let wait = culvert_tunnel::Backoff::new().failed(std::time::Instant::now(), refusal.retry_after);
    assert!((30.0..=45.0).contains(&wait.as_secs_f64()), "{wait:?}");
    let (nobody, _served) = link(&hub, Peer { agent: None, ..peer() }, Open(0), limits()).await;
    let end = run(&nobody, hello()).await;
    assert!(
        matches!(&end, LinkEnd::Refused(refusal) if refusal.code == RefusalCode::Unauthenticated),
        "{end:?}"
    );
    let (broken, _served) = link(&hub, peer(), Open(0), limits()).await;
    let end = run(&broken, proto::Hello { instance: Bytes::from_static(b"short"), ..hello() }).await;
    assert!(matches!(&end, LinkEnd::Refused(refusal) if refusal.code == RefusalCode::Protocol), "{end:?}");
}

#[tokio::test]
async fn the_epoch_is_above_what_the_store_knows() {
    let hub = hub();
    let (link, _served) = link(&hub, peer(), Open(1000), limits()).await;
    let running = tokio::spawn(async move { run(&link, hello()).await });
    until("epoch", || (hub.session(key()).map(|session| session.epoch), Some(1001))).await;
    running.abort();
}

#[tokio::test]
async fn a_cut_ends_the_session_and_its_calls_at_once() {
    let hub = hub();
    let (_go, handler) = streams();
    let site = Site::with(&hub, limits(), hello(), handler).await;
    let running = begin_stream(&site).await;
    let why = Refusal::new(RefusalCode::Locked, "locked");
    hub.cut(key(), why.clone());
    timeout(Duration::from_millis(900), running.into_body().collect()).await.expect("at once").unwrap_err();
    assert_eq!(timeout(PATIENCE, site.agent).await.unwrap().unwrap(), LinkEnd::Refused(why.clone()));
    assert_eq!(timeout(PATIENCE, site.served).await.unwrap().unwrap(), Ended::Cut(why));
}

#[tokio::test]
async fn rule_6_a_draining_controller_loses_no_call_that_can_end() {
    let hub = hub();
    let (go, handler) = streams();
    let mut site = Site::with(&hub, limits(), hello(), handler).await;
    let running = begin_stream(&site).await;
    site.stop_controller.cancel();
    let signal = timeout(PATIENCE, async {
        loop {
            match site.signals.recv().await {
                Some(Signal::Beat { .. }) => {}
                other => break other,
            }
        }
    });
    assert!(matches!(signal.await.unwrap(), Some(Signal::Drain { .. })));
    let quick = CallOptions { wait_for_agent: Duration::ZERO, ..CallOptions::default() };
    let error =
        site.cluster().call(http::Request::get("/").body(String::new()).unwrap(), quick).await.unwrap_err();
    assert!(matches!(error, CallError::NotConnected { .. }), "no new call: {error:?}");
    assert!(!site.served.is_finished());
    go.send(()).await.unwrap();
    assert_eq!(timeout(PATIENCE, running.into_body().collect()).await.unwrap().unwrap().to_bytes(), "last");
    assert_eq!(timeout(PATIENCE, site.agent).await.unwrap().unwrap(), LinkEnd::Drained);
    timeout(PATIENCE, site.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn rule_6_an_idle_agent_hears_of_a_drain() {
    let hub = hub();
    let site = Site::with(&hub, limits(), hello(), ok()).await;
    site.stop_controller.cancel();
    // It goes because it was told, not because it was cut off.
    assert_eq!(timeout(PATIENCE, site.agent).await.unwrap().unwrap(), LinkEnd::Drained);
    assert_eq!(timeout(PATIENCE, site.served).await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn rule_6_an_agent_that_stays_after_a_drain_is_cut_off() {
    let hub = hub();
    let (near, far) = tokio::io::duplex(256 << 10);
    let stop = CancellationToken::new();
    let served = {
        let (hub, stop) = (hub.clone(), stop.clone());
        tokio::spawn(async move { hub.serve(near, peer(), Open(0), none(), stop).await })
    };
    let link = Link::start(far, limits()).await.unwrap();
    let (_say, mut down) = tonic_agent(&link).await;
    timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    stop.cancel();
    let told = timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    assert!(matches!(told.kind, Some(proto::control_down::Kind::Drain(_))), "{told:?}");
    assert_eq!(timeout(PATIENCE, served).await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn rule_6_a_draining_agent_finishes_its_calls() {
    let hub = hub();
    let (go, handler) = streams();
    let old = Site::with(&hub, limits(), of(1), handler).await;
    let running = begin_stream(&old).await;
    old.stop_agent.cancel();
    until("accepting", || (hub.session(key()).is_some_and(|session| session.accepting), false)).await;
    let waiting = {
        let cluster = old.cluster();
        tokio::spawn(async move { get(&cluster, "/").await.map_err(|error| error.to_string()) })
    };
    // The next pod of a rolling update: another process with the same identity.
    let _new = Site::with(&hub, limits(), of(2), ok()).await;
    assert_eq!(
        timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap(),
        "ok",
        "a new call waits for the next one"
    );
    go.send(()).await.unwrap();
    assert_eq!(timeout(PATIENCE, running.into_body().collect()).await.unwrap().unwrap().to_bytes(), "last");
    assert_eq!(timeout(PATIENCE, old.agent).await.unwrap().unwrap(), LinkEnd::Stopped);
}

#[tokio::test]
async fn rule_7_a_silent_agent_and_a_silent_controller_are_given_up() {
    let quick =
        Limits { heartbeat: Duration::from_millis(100), ping_idle: Duration::from_secs(60), ..limits() };
    let hub = Hub::new("replica".into(), quick.clone());
    // The pipe is held in the middle, and at some moment nothing passes any more.
    let (near, near_held) = tokio::io::duplex(64 << 10);
    let (far_held, far) = tokio::io::duplex(64 << 10);
    let hold = CancellationToken::new();
    let relay = {
        let hold = hold.clone();
        tokio::spawn(async move {
            let (mut near_held, mut far_held) = (near_held, far_held);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near_held, &mut far_held) => {}
                () = hold.cancelled() => {}
            }
            (near_held, far_held)
        })
    };
    let site = Site::over(&hub, near, far, quick, hello(), ok()).await;
    until("connected", || (hub.session(key()).is_some_and(|session| session.fresh), true)).await;
    // It lives on heartbeats alone for many periods.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(hub.session(key()).is_some_and(|session| session.fresh));
    hold.cancel();
    let _held = relay.await.unwrap();
    until("stale", || (hub.session(key()).is_some_and(|session| session.fresh), false)).await;
    assert_eq!(timeout(PATIENCE, site.served).await.unwrap().unwrap(), Ended::Silent);
    let end = timeout(PATIENCE, site.agent).await.unwrap().unwrap();
    assert!(matches!(end, LinkEnd::Lost(_)), "{end:?}");
}

#[tokio::test]
async fn rule_7_a_dead_peer_is_found_by_ping_before_any_session() {
    let quick =
        Limits { ping_idle: Duration::from_millis(50), ping_timeout: Duration::from_millis(50), ..limits() };
    let (near, _far) = tokio::io::duplex(64 << 10);
    // The other end takes bytes and answers none.
    let link = Link::start(near, quick).await.unwrap();
    let end = run(&link, hello()).await;
    assert_eq!(end, LinkEnd::Lost("the controller does not answer a PING".into()));
}

#[tokio::test]
async fn an_expired_certificate_ends_the_session() {
    let hub = hub();
    let soon = std::time::SystemTime::now() + Duration::from_millis(300);
    let (link, served) = link(&hub, Peer { not_after: Some(soon), ..peer() }, Open(0), limits()).await;
    let running = tokio::spawn(async move { run(&link, hello()).await });
    assert_eq!(timeout(PATIENCE, served).await.unwrap().unwrap(), Ended::Expired);
    assert!(matches!(running.await.unwrap(), LinkEnd::Lost(_)));
}

#[tokio::test]
async fn a_connection_without_a_session_ends_when_idle() {
    let hub = Hub::new("replica".into(), Limits { idle: Duration::from_millis(100), ..limits() });
    let (_link, served) = link(&hub, peer(), Open(0), limits()).await;
    assert_eq!(timeout(PATIENCE, served).await.unwrap().unwrap(), Ended::Idle);
}

/// Control by tonic's generated client, Answer with whatever headers and messages.
async fn tonic_agent(link: &Link) -> (mpsc::Sender<proto::ControlUp>, tonic::Streaming<proto::ControlDown>) {
    let mut client =
        TunnelClient::with_origin(link.channel(), "https://agents.culvert.internal".parse().unwrap());
    let (say, mut said) = mpsc::channel(16);
    let said = futures::stream::poll_fn(move |cx| said.poll_recv(cx));
    say.send(proto::ControlUp { kind: Some(Up::Hello(hello())) }).await.unwrap();
    let down = timeout(PATIENCE, client.control(said)).await.unwrap().unwrap().into_inner();
    (say, down)
}

#[tokio::test]
async fn a_generated_client_interoperates() {
    let hub = hub();
    let (link, _served) = link(&hub, peer(), Open(0), limits()).await;
    let (say, mut down) = tonic_agent(&link).await;
    let welcome = timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    assert!(matches!(welcome.kind, Some(proto::control_down::Kind::Welcome(welcome)) if welcome.epoch == 1));
    let beat = proto::Heartbeat { sequence: 9, sent_us: 99 };
    say.send(proto::ControlUp { kind: Some(Up::Heartbeat(beat)) }).await.unwrap();
    let echo = timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(echo.kind, Some(proto::control_down::Kind::Heartbeat(beat)));
    // A call, answered message by message as generated code does it.
    let cluster = hub.cluster(key());
    let request = http::Request::post("/").body(http_body_util::Full::new(site::pattern(100_000))).unwrap();
    let call = tokio::spawn(async move { cluster.call(request, CallOptions::default()).await });
    let open = timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    let Some(proto::control_down::Kind::Open(open)) = open.kind else { panic!("{open:?}") };
    let (answer, mut answers) = mpsc::channel(16);
    let mut request = tonic::Request::new(futures::stream::poll_fn(move |cx| answers.poll_recv(cx)));
    let id: String = open.call_id.iter().map(|byte| format!("{byte:02x}")).collect();
    request.metadata_mut().insert("culvert-call", id.parse().unwrap());
    let up = |kind| proto::AnswerUp { kind: Some(kind) };
    let head = proto::Head { status: 200, ..Default::default() };
    answer.send(up(proto::answer_up::Kind::Head(head))).await.unwrap();
    let mut client =
        TunnelClient::with_origin(link.channel(), "https://agents.culvert.internal".parse().unwrap());
    let mut body = timeout(PATIENCE, client.answer(request)).await.unwrap().unwrap().into_inner();
    let mut seen = open.body.len();
    loop {
        match timeout(PATIENCE, body.message()).await.unwrap().unwrap().unwrap().kind {
            Some(proto::answer_down::Kind::Data(data)) => seen += data.len(),
            Some(proto::answer_down::Kind::End(_)) => break,
            None => {}
        }
    }
    assert_eq!(seen, 100_000);
    answer.send(up(proto::answer_up::Kind::Data(Bytes::from_static(b"by hand")))).await.unwrap();
    answer.send(up(proto::answer_up::Kind::End(proto::End::default()))).await.unwrap();
    let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "by hand");
    assert!(timeout(PATIENCE, body.message()).await.unwrap().unwrap().is_none(), "ended with status OK");
}

#[tokio::test]
async fn rule_9_answers_to_unknown_calls_are_reset_and_harm_nobody() {
    let hub = hub();
    let (link, served) = link(&hub, peer(), Open(0), limits()).await;
    let (_say, mut down) = tonic_agent(&link).await;
    timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    for at in 0..1000_u32 {
        let mut client =
            TunnelClient::with_origin(link.channel(), "https://agents.culvert.internal".parse().unwrap());
        let mut request = tonic::Request::new(futures::stream::pending());
        let id = if at % 3 == 0 { "nonsense".to_owned() } else { format!("{at:032x}") };
        request.metadata_mut().insert("culvert-call", id.parse().unwrap());
        timeout(PATIENCE, client.answer(request)).await.unwrap().expect_err("reset");
    }
    assert_eq!(hub.counts().unknown_answers, 1000);
    assert!(!served.is_finished());
    assert!(hub.session(key()).is_some());
}

#[tokio::test]
async fn rule_9_an_answer_of_another_agent_is_not_taken() {
    let hub = hub();
    let (victim, _served) = link(&hub, peer(), Open(0), limits()).await;
    let (_say, mut down) = tonic_agent(&victim).await;
    timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    let other = AgentKey { agent: uuid::Uuid::from_u128(3), ..key() };
    let (thief, _served) = link(&hub, Peer { agent: Some(other), ..peer() }, Open(0), limits()).await;
    let (_say, mut thiefs_down) = tonic_agent(&thief).await;
    timeout(PATIENCE, thiefs_down.message()).await.unwrap().unwrap().unwrap();
    let cluster = hub.cluster(key());
    let call = tokio::spawn(async move { get(&cluster, "/").await.map_err(|error| error.to_string()) });
    let open = timeout(PATIENCE, down.message()).await.unwrap().unwrap().unwrap();
    let Some(proto::control_down::Kind::Open(open)) = open.kind else { panic!("{open:?}") };
    let mut request = tonic::Request::new(futures::stream::pending());
    let id: String = open.call_id.iter().map(|byte| format!("{byte:02x}")).collect();
    request.metadata_mut().insert("culvert-call", id.parse().unwrap());
    let mut client =
        TunnelClient::with_origin(thief.channel(), "https://agents.culvert.internal".parse().unwrap());
    timeout(PATIENCE, client.answer(request)).await.unwrap().expect_err("reset");
    assert!(!call.is_finished());
    assert_eq!(hub.counts().unknown_answers, 1);
    call.abort();
}
