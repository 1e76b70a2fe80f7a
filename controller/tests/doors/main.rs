//! A whole controller behind its real doors: enrolment over mTLS, kubectl's way through the
//! gateway and the tunnel, and what each door refuses. The cluster's end is the tunnel's own
//! link in front of a target that only pretends; the real Kubernetes is met elsewhere.
// A test says what is wrong by stopping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that cannot go on stops, and nobody imports it"
)]

mod agent;
mod world;

use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_pki::key::KeyPair;
use culvert_pki::token::JoinToken;
use culvert_tunnel::REFUSAL;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use world::{GATEWAY, PATIENCE, World, body, get, text};

/// The contract allows five seconds; the rest is this machine's.
const CUT: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_person_reaches_the_cluster_in_their_own_name() {
    let world = World::start().await;
    let (id, token) = world.cluster("eu").await;
    let identity = agent::enrol(&world, &token).await;
    let agent = agent::connect(&world, &identity).await;
    let person = world.person().await;

    let answer =
        world.as_person(&person, get("/clusters/eu/api/v1/namespaces/a/pods/p%3Aq?x=%41%2f&y")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.headers()["audit-id"], "1");
    assert!(!answer.headers().contains_key("set-cookie"), "a cluster sets no cookies on the gateway's name");
    let told = body(answer).await;
    assert_eq!(told["path"], "/api/v1/namespaces/a/pods/p%3Aq?x=%41%2f&y", "byte for byte");
    assert_eq!(told["user"], "culvert:admin");
    assert_eq!(told["groups"], json!(["culvert:admins"]));
    assert_eq!(told["request_id"], request_id.as_str());

    let told = body(world.as_person_2(&person, get("/clusters/eu/api/v1/nodes?limit=500")).await).await;
    assert_eq!(
        (told["path"].as_str(), told["user"].as_str()),
        (Some("/api/v1/nodes?limit=500"), Some("culvert:admin"))
    );

    let upload = Request::post(format!("/clusters/{id}/api/v1/namespaces/a/configmaps"))
        .header("host", GATEWAY)
        .header("content-type", "application/json")
        .header("cookie", "session=1")
        .body(Full::from(vec![b'x'; 3 << 20]))
        .unwrap();
    let told = body(world.as_person(&person, upload).await).await;
    assert_eq!((told["received"].as_u64(), told["method"].as_str()), (Some(3 << 20), Some("POST")));
    assert!(!told["headers"].to_string().contains("cookie"), "{told}");

    let line = world.audited(&format!("/clusters/{id}/api/v1/namespaces/a/configmaps"), "complete").await;
    assert_eq!(line["verb"], "create");
    assert_eq!((line["resource"].as_str(), line["namespace"].as_str()), (Some("configmaps"), Some("a")));
    assert_eq!((line["status"].as_u64(), line["bytes_up"].as_u64()), (Some(200), Some(3 << 20)));
    assert_eq!((line["actor"].as_str(), line["cluster"].as_str()), (Some("admin"), Some(id.as_str())));

    agent.stop().await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_gateway_refuses_is_a_kubernetes_status() {
    let world = World::start().await;
    let (_, token) = world.cluster("eu").await;
    world.cluster("empty").await;
    let identity = agent::enrol(&world, &token).await;
    let agent = agent::connect(&world, &identity).await;
    let person = world.person().await;

    let cases = [
        (get("/clusters/nowhere/api/v1/pods"), 404, "NotFound", "there is no cluster nowhere"),
        (get("/api/v1/pods"), 404, "NotFound", "clusters are at /clusters/"),
        (get("/clusters/eu/api/v1/namespaces/../secrets"), 400, "BadRequest", "'.' or '..'"),
        (get("/clusters/eu/api/v1/namespaces/%2e%2e/secrets"), 400, "BadRequest", "'.' or '..'"),
        (get("/clusters/eu/api/v1//secrets"), 400, "BadRequest", "empty segment"),
        (get("/clusters/eu/api/v1/namespaces/a%2Fb/pods"), 400, "BadRequest", "encoded slash"),
        (get("/clusters/empty/api/v1/pods"), 503, "ServiceUnavailable", "no agent"),
        (
            get("/clusters/eu/apis/denied/v1/things"),
            403,
            "Forbidden",
            "denied by the cluster's own policy: writes are off",
        ),
        (with("impersonate-user", "system:admin"), 403, "Forbidden", "impersonation"),
        (with("authorization", "Basic eDp5"), 401, "Unauthorized", "Bearer"),
        (with("authorization", "Bearer cva1.nonsense"), 401, "Unauthorized", ""),
    ];
    for (request, code, reason, part) in cases {
        let what = format!("{request:?}");
        let answer = world.as_person(&person, request).await;
        assert_eq!(answer.status().as_u16(), code, "{what}");
        assert!(answer.headers().contains_key("x-request-id"), "{what}");
        let status = body(answer).await;
        assert_eq!(
            (status["kind"].as_str(), status["reason"].as_str()),
            (Some("Status"), Some(reason)),
            "{what}"
        );
        assert_eq!(status["code"].as_u64(), Some(code.into()), "{what}");
        assert!(status["message"].as_str().unwrap().contains(part), "{what}: {status}");
    }
    let nobody = world.send(GATEWAY, world.trusting(None, b"http/1.1"), get("/clusters/eu/api")).await;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);

    agent.stop().await;
    let offline = body(world.as_person(&person, get("/clusters/eu/api/v1/pods")).await).await;
    assert_eq!(offline["reason"], "ServiceUnavailable");
    assert!(
        offline["message"].as_str().unwrap().contains("the agent of cluster eu is not connected since"),
        "{offline}"
    );
    world.stop().await.unwrap();
}

fn with(name: &str, value: &str) -> Request<Full<Bytes>> {
    let mut request = get("/clusters/eu/api/v1/pods");
    request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    request
}

#[tokio::test]
async fn watches_end_when_their_right_ends() {
    let world = World::start().await;
    let (id, token) = world.cluster("eu").await;
    let identity = agent::enrol(&world, &token).await;
    let agent = agent::connect(&world, &identity).await;
    let person = world.person().await;
    let made =
        world.make("/api-tokens", json!({ "name": "ci", "role": "reader", "ttl_seconds": 3600 })).await;

    let mut by_token = get("/clusters/eu/api/v1/pods?watch=1");
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    by_token.headers_mut().insert("authorization", bearer.parse().unwrap());
    let machine = world.send(GATEWAY, world.trusting(None, b"http/1.1"), by_token).await;
    let human = world.as_person_2(&person, get("/clusters/eu/api/v1/nodes?watch=1")).await;
    assert_eq!((machine.status(), human.status()), (StatusCode::OK, StatusCode::OK));
    let (mut machine, mut human) = (machine.into_body(), human.into_body());
    for stream in [&mut machine, &mut human] {
        let first = timeout(PATIENCE, stream.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "{\"type\":\"ADDED\"}\n");
    }
    world.audited("/clusters/eu/api/v1/pods", "started").await;

    let path = format!("/api-tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(world.api(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    let begun = Instant::now();
    timeout(CUT, machine.frame())
        .await
        .expect("the machine's watch went on")
        .unwrap()
        .expect_err("it ended without an error");
    assert!(
        timeout(Duration::from_millis(300), human.frame()).await.is_err(),
        "another caller's watch ended too"
    );
    let line = world.audited("/clusters/eu/api/v1/pods", "ended").await;
    assert_eq!((line["cause"].as_str(), line["actor"].as_str()), (Some("access_revoked"), Some("ci")));

    let lock = world
        .api(Method::PUT, &format!("/clusters/{id}/lock"), Some(json!({ "message": "incident 7" })))
        .await;
    assert!(lock.0.is_success(), "{lock:?}");
    timeout(CUT, human.frame())
        .await
        .expect("the watch of a locked cluster went on")
        .unwrap()
        .expect_err("no error");
    assert!(begun.elapsed() < CUT * 2);
    let refused = body(world.as_person(&person, get("/clusters/eu/api/v1/pods")).await).await;
    assert_eq!(refused["reason"], "Forbidden");
    assert!(refused["message"].as_str().unwrap().contains("incident 7"), "{refused}");
    agent.stop.cancel();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_passes_bytes_and_keeps_its_half_close() {
    let world = World::start().await;
    let (_, token) = world.cluster("eu").await;
    let identity = agent::enrol(&world, &token).await;
    let agent = agent::connect(&world, &identity).await;
    let person = world.person().await;
    let exec = |command: &str| {
        Request::post(format!("/clusters/eu/api/v1/namespaces/a/pods/p/exec?command={command}"))
            .header("host", GATEWAY)
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", "v4.channel.k8s.io")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let answer = world.as_person(&person, exec("cat")).await;
    assert_eq!(
        (answer.status(), answer.headers()["upgrade"].as_bytes()),
        (StatusCode::SWITCHING_PROTOCOLS, &b"SPDY/3.1"[..])
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let mut received = Vec::new();
    let moved = async {
        tokio::try_join!(
            async {
                writer.write_all(&sent).await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut received)
        )
    };
    timeout(PATIENCE, moved).await.expect("the bytes did not come back").unwrap();
    assert_eq!(received.len(), sent.len() + 3);
    assert!(
        received.starts_with(&sent) && received.ends_with(b"bye"),
        "the answer to the end of input was lost"
    );
    let line = world.audited("/clusters/eu/api/v1/namespaces/a/pods/p/exec", "ended").await;
    assert_eq!((line["bytes_up"].as_u64(), line["bytes_down"].as_u64()), (Some(1_000_000), Some(1_000_003)));

    let refused = world.as_person(&person, exec("none")).await;
    let (status, said) = (refused.status(), text(refused).await);
    let own = "the cluster's own status, so that kubectl falls back";
    assert_eq!((status, said.as_str()), (StatusCode::FORBIDDEN, "no such luck"), "{own}");
    agent.stop().await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn each_way_to_fail_an_enrolment_is_told_at_both_ends() {
    let world = World::start().await;
    let (id, token) = world.cluster("eu").await;
    let key = || KeyPair::generate().unwrap();
    let code = |status: &tonic::Status| status.metadata().get(REFUSAL).unwrap().to_str().unwrap().to_owned();

    let parsed = JoinToken::parse(&token).unwrap();
    let other = key().pin();
    assert!(agent::link(&world, &parsed, &[other]).await.is_err());
    let seen = world.attempt(&id, "wrong_pin").await;
    assert_eq!((seen["stage"].as_str(), seen["outcome"].as_str()), (Some("tls"), Some("failed")), "{seen}");

    let silent = agent::link(&world, &parsed, &parsed.pins()).await.unwrap();
    silent.close().await;
    let seen = world.attempt(&id, "tls_intercepted").await;
    assert!(seen["detail"].as_str().unwrap().contains("TLS-inspecting proxy"), "{seen}");

    let forged = agent::redeem_with(&world, &token, &key(), |r| r.token_secret = vec![0; 32].into())
        .await
        .unwrap_err();
    assert_eq!(code(&forged), "token_unknown");
    assert!(forged.message().contains("new join token"), "{forged:?}");
    world.attempt(&id, "token_unknown").await;
    let old =
        agent::redeem_with(&world, &token, &key(), |r| r.agent_version = "0.0.1".into()).await.unwrap_err();
    assert_eq!(code(&old), "version_too_old");
    let late = agent::redeem_with(&world, &token, &key(), |r| r.clock_ms -= 3_600_000).await.unwrap_err();
    assert_eq!(code(&late), "clock_skew");
    let bad =
        agent::redeem_with(&world, &token, &key(), |r| r.csr = vec![0x30; 200].into()).await.unwrap_err();
    assert_eq!(code(&bad), "csr_invalid");
    let huge =
        agent::redeem_with(&world, &token, &key(), |r| r.csr = vec![0x30; 1 << 20].into()).await.unwrap_err();
    assert_eq!(huge.code(), tonic::Code::OutOfRange, "{huge:?}");

    let first = key();
    let granted = agent::redeem(&world, &token, &first).await.unwrap();
    let again = agent::redeem(&world, &token, &first).await.unwrap();
    assert_eq!(granted.certificate, again.certificate, "the same key gets the same certificate");
    let second = agent::redeem(&world, &token, &key()).await.unwrap_err();
    assert_eq!(code(&second), "token_used");
    world.attempt(&id, "token_used").await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn fifty_enrolments_at_once_with_one_token_give_one_certificate() {
    let world = World::start().await;
    let (_, token) = world.cluster("eu").await;
    let keys: Vec<KeyPair> = (0..50).map(|_| KeyPair::generate().unwrap()).collect();
    let outcomes = futures::future::join_all(keys.iter().map(|key| agent::redeem(&world, &token, key))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_operator_sees_health_and_metrics() {
    let world = World::start().await;
    let (_, token) = world.cluster("eu").await;
    let identity = agent::enrol(&world, &token).await;
    let agent = agent::connect(&world, &identity).await;
    let person = world.person().await;
    text(world.as_person(&person, get("/clusters/eu/version")).await).await;
    assert_eq!(world.ops("/healthz").await, (StatusCode::OK, "ok\n".into()));
    assert_eq!(world.ops("/readyz").await, (StatusCode::OK, "ready\n".into()));
    let (_, metrics) = world.ops("/metrics").await;
    for line in [
        "culvert_agents_connected 1",
        "culvert_agents_calls_total 1",
        "culvert_agents_certificates_total{way=\"Enrol\",result=\"Granted\"} 1",
        "culvert_gateway_requests_total{verb=\"Read\",code=\"Success\"} 1",
        "culvert_edge_handshakes_total{door=\"Agents\",outcome=\"Passed\"}",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    agent.stop().await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_controller_that_stops_ends_watches_cleanly_and_does_not_wait_for_them() {
    let world = World::start().await;
    let (_, token) = world.cluster("eu").await;
    let identity = agent::enrol(&world, &token).await;
    let _agent = agent::connect(&world, &identity).await;
    let person = world.person().await;
    let answer = world.as_person(&person, get("/clusters/eu/api/v1/pods?watch=1")).await;
    let begun = Instant::now();
    let (watched, stopped) = tokio::join!(text(answer), world.stop());
    stopped.unwrap();
    assert_eq!(watched, "{\"type\":\"ADDED\"}\n", "the watch ended without an error");
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
}
