//! Agents that are here: a real session over a pipe in memory, and what the API
//! shows of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::http::Method;
use culvert_controller::app::{App, Arrival, Redeem};
use culvert_controller::domain::Caller;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::verify::verify_peer;
use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{
    Admission, Admitted, AgentKey, Call, Failure, FailureCode, Handler, Limits, Link, LinkEnd, Peer, Refusal,
    RefusalCode, Reply, Signal,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Client, House};

/// Asks the app, as the agents' door does.
struct Gate {
    app: App,
    serial: String,
}

impl Admission for Gate {
    async fn admit(
        &self,
        agent: AgentKey,
        hello: &proto::Hello,
        source: SocketAddr,
    ) -> Result<Admitted, Refusal> {
        let arrival = Arrival {
            agent,
            serial: &self.serial,
            version: &hello.version,
            clock_ms: hello.clock_ms,
            instance: hello.instance.as_ref().try_into().unwrap(),
            last_epoch: hello.last_epoch,
            standby: hello.standby,
            source,
        };
        let admitted = self.app.admit(arrival).await.map(|w| Admitted { epoch_floor: w.epoch - 1 });
        admitted.map_err(|turned| Refusal::new(RefusalCode::parse(turned.cause.code()), turned.to_string()))
    }
}

/// Carries nothing out.
#[derive(Clone)]
struct Idle;

impl Handler for Idle {
    async fn handle(&self, _: Call) -> Result<Reply, Failure> {
        Err(Failure { code: FailureCode::Denied, message: "this agent only listens".to_owned() })
    }
}

/// An agent that enrolled, with its way to the hub.
pub(crate) struct Agent {
    pub(crate) key: AgentKey,
    serial: String,
}

/// A connection of an agent.
struct Connection {
    end: JoinHandle<LinkEnd>,
    _facts: watch::Sender<Option<proto::Facts>>,
    _signals: mpsc::Receiver<Signal>,
}

pub(crate) async fn enrol(house: &House, admin: &Client<'_>, name: &str) -> Agent {
    let token = admin.join_token(name).await;
    let attempt = house.app.attempt_reached(&token.id(), [10, 0, 0, 1].into()).await;
    let pair = KeyPair::generate().unwrap();
    let asked = Redeem {
        token_id: &token.id().to_string(),
        secret: token.secret(),
        csr: &csr::make(&pair).unwrap(),
        version: "0.1.0",
        clock_ms: house.hands.ms(),
        source: [10, 0, 0, 1].into(),
        attempt,
    };
    let enrolled = house.app.redeem(asked).await.unwrap();
    let chain: Vec<_> = enrolled.certificate.chain.into_iter().map(CertificateDer::from).collect();
    let peer = verify_peer(&chain, house.app.roots(), house.app.domain(), house.hands.now()).unwrap();
    let org = peer.org.unwrap().into();
    Agent { key: App::agent_key(org, enrolled.agent), serial: peer.serial.to_string() }
}

impl Agent {
    async fn connect(&self, house: &House) -> Connection {
        let (near, far) = tokio::io::duplex(64 << 10);
        let hub = house.hub.clone();
        let peer = Peer { agent: Some(self.key), source: "10.0.0.1:999".parse().unwrap(), not_after: None };
        let gate = Gate { app: house.app.clone(), serial: self.serial.clone() };
        let stop = house.stop.clone();
        tokio::spawn(
            async move { hub.serve(near, peer, gate, tonic::service::Routes::default(), stop).await },
        );
        let told = proto::Facts {
            kubernetes_version: "v1.35.4".to_owned(),
            nodes: 3,
            route: "direct".to_owned(),
            ..proto::Facts::default()
        };
        let (facts, facts_seen) = watch::channel(Some(told));
        let (signal, signals) = mpsc::channel(64);
        let hello = proto::Hello {
            version: "0.1.0".to_owned(),
            instance: vec![7; 16].into(),
            clock_ms: house.hands.ms(),
            ..proto::Hello::default()
        };
        let link = Link::start(far, Limits::default()).await.unwrap();
        let end =
            tokio::spawn(
                async move { link.run(hello, Idle, facts_seen, signal, CancellationToken::new()).await },
            );
        Connection { end, _facts: facts, _signals: signals }
    }
}

/// Carries the hub's news to the app, as the agents' door does.
fn carry_news(house: &House) {
    let (app, mut events) = (house.app.clone(), house.hub.events());
    tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            app.session_event(event).await.unwrap();
        }
    });
}

/// Asks until the answer is as wanted; else tells the last one.
async fn until(client: &Client<'_>, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let last = client.get(path).await.ok(200);
        if wanted(&last) {
            return last;
        }
        assert!(Instant::now() < deadline, "{path} stays {last:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ended(connection: Connection) -> LinkEnd {
    tokio::time::timeout(Duration::from_secs(5), connection.end).await.expect("not cut within 5 s").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_agent_is_shown_as_it_is() {
    let house = House::sqlite().await;
    carry_news(&house);
    let admin = house.admin().await;
    let agent = enrol(&house, &admin, "plant").await;
    let connection = agent.connect(&house).await;

    let told = |v: &Value| v["state"] == "connected" && v["facts"]["nodes"] == 3;
    let shown = until(&admin, "/clusters/plant", told).await;
    assert_eq!(shown["agent"]["state"], "connected");
    assert_eq!(shown["agent"]["source"], "10.0.0.1");
    assert!(shown["agent"]["epoch"].as_u64().unwrap() >= 1);
    assert!(shown["agent"]["connected_since"].is_string());
    assert_eq!(admin.get("/clusters?state=connected").await.ok(200)["items"][0]["name"], "plant");
    let lit = |v: &Value| v["attempts"][0]["outcome"] == "passed";
    let diagnosis = until(&admin, "/clusters/plant/diagnosis", lit).await;
    assert!(diagnosis["lights"].as_array().unwrap().iter().all(|l| l["state"] == "on"), "{diagnosis}");
    assert_eq!(diagnosis["next"], json!(null));

    connection.end.abort();
    let gone = until(&admin, "/clusters/plant", |v| v["state"] == "disconnected").await;
    assert_eq!(gone["facts"]["nodes"], 3, "what was told stays known");
    assert!(gone["agent"]["last_seen_at"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_a_deletion_cut_the_session() {
    let house = House::sqlite().await;
    carry_news(&house);
    let admin = house.admin().await;
    let agent = enrol(&house, &admin, "plant").await;
    let connection = agent.connect(&house).await;
    until(&admin, "/clusters/plant", |v| v["state"] == "connected").await;

    let lock = json!({"message": "audit"});
    admin.json_with(Method::PUT, "/clusters/plant/lock", lock, &[]).await.ok(200);
    let end = ended(connection).await;
    assert!(
        matches!(&end, LinkEnd::Refused(r) if r.code == RefusalCode::Locked && r.message.contains("audit")),
        "{end:?}"
    );
    let again = ended(agent.connect(&house).await).await;
    assert!(matches!(&again, LinkEnd::Refused(r) if r.code == RefusalCode::Locked), "{again:?}");
    let refused = until(&admin, "/clusters/plant", |v| v["agent"]["last_refusal"]["code"] == "locked").await;
    assert_eq!(refused["state"], "locked");

    admin.delete("/clusters/plant/lock").await.ok(204);
    let connection = agent.connect(&house).await;
    until(&admin, "/clusters/plant", |v| v["state"] == "connected").await;
    admin.delete("/clusters/plant").await.ok(204);
    let end = ended(connection).await;
    assert!(matches!(&end, LinkEnd::Refused(r) if r.code == RefusalCode::Revoked), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_another_process_is_enforced_by_the_task() {
    let house = House::sqlite().await;
    carry_news(&house);
    let admin = house.admin().await;
    let agent = enrol(&house, &admin, "plant").await;
    let connection = agent.connect(&house).await;
    until(&admin, "/clusters/plant", |v| v["state"] == "connected").await;
    assert_eq!(house.app.cut_unwanted().await.unwrap(), 0);
    assert_eq!(house.app.catch_up().await.unwrap(), 1);

    let store = house.store().await;
    let caller = house.caller().await;
    let tx = store.write(&Caller::controller(caller.org())).await.unwrap();
    let cluster = tx.cluster(&"plant".parse().unwrap()).await.unwrap().unwrap();
    assert!(tx.delete_cluster(cluster.id).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(house.app.cut_unwanted().await.unwrap(), 1);
    let end = ended(connection).await;
    assert!(matches!(&end, LinkEnd::Refused(r) if r.code == RefusalCode::Revoked), "{end:?}");
}
