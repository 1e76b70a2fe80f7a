//! Join tokens, certificates and returns, through the app as the agents' door uses
//! it.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_controller::app::{AttemptKey, Enrolled, Redeem, Rejoin, TurnedAway};
use culvert_controller::domain::{AgentState, Cause, ClusterRef, LightState, Outcome, Stage};
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::name::Identity;
use culvert_pki::rejoin::Statement;
use culvert_pki::token::JoinToken;
use culvert_pki::verify::verify_peer;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::fixture::{House, On};

const SITE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));

/// An agent that holds a key.
struct Site {
    key: KeyPair,
    csr: Vec<u8>,
    attempt: Option<AttemptKey>,
    source: IpAddr,
    version: &'static str,
    clock_off_ms: i64,
}

impl Site {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let csr = csr::make(&key).unwrap();
        Self { key, csr, attempt: None, source: SITE, version: "0.1.0", clock_off_ms: 0 }
    }

    async fn redeem(&self, house: &House, token: &JoinToken) -> Result<Enrolled, TurnedAway> {
        self.redeem_with(house, &token.id().to_string(), token.secret()).await
    }

    async fn redeem_with(&self, house: &House, id: &str, secret: &[u8]) -> Result<Enrolled, TurnedAway> {
        let asked = Redeem {
            token_id: id,
            secret,
            csr: &self.csr,
            version: self.version,
            clock_ms: house.hands.ms() + self.clock_off_ms,
            source: self.source,
            attempt: self.attempt,
        };
        house.app.redeem(asked).await
    }

    async fn rejoin(&self, house: &House, certificate: &[u8], generation: u64) -> Result<u64, TurnedAway> {
        let binding = [7; 32];
        let statement = Statement {
            certificate,
            csr: &self.csr,
            generation,
            clock_ms: house.hands.ms(),
            channel_binding: &binding,
        };
        let signature = statement.sign(&self.key).unwrap();
        let asked = Rejoin {
            certificate,
            csr: &self.csr,
            generation,
            version: self.version,
            clock_ms: house.hands.ms(),
            signature: &signature,
            channel_binding: &binding,
            source: self.source,
        };
        house.app.rejoin(asked).await.map(|renewed| renewed.generation)
    }
}

fn cause<T: std::fmt::Debug>(outcome: Result<T, TurnedAway>) -> Cause {
    outcome.unwrap_err().cause
}

fn chain(enrolled: &Enrolled) -> Vec<CertificateDer<'static>> {
    enrolled.certificate.chain.iter().map(|c| CertificateDer::from(c.clone())).collect()
}

#[tokio::test]
async fn a_token_becomes_an_identity_and_a_retry_gets_the_same() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let token = admin.join_token("plant").await;
    let site = Site::new();
    let enrolled = site.redeem(&house, &token).await.unwrap();
    let now = house.hands.now();
    let peer = verify_peer(&chain(&enrolled), house.app.roots(), house.app.domain(), now).unwrap();
    assert_eq!(peer.identity, Identity::Agent { org: peer.org.unwrap(), agent: enrolled.agent.uuid() });
    assert_eq!(peer.not_after, now.replace_nanosecond(0).unwrap() + time::Duration::hours(24));
    assert_eq!(enrolled.certificate.roots.len(), 1);
    let again = site.redeem(&house, &token).await.unwrap();
    assert_eq!(again.certificate.chain, enrolled.certificate.chain);
    assert_eq!((again.agent, again.generation), (enrolled.agent, 1));

    let shown = admin.get("/clusters/plant").await.ok(200);
    assert_eq!(shown["state"], "disconnected");
    assert_eq!(shown["agent"]["id"], enrolled.agent.to_string());
    let tokens = admin.get("/clusters/plant/join-tokens").await.ok(200);
    assert_eq!(tokens["items"][0]["state"], "used");
    assert_eq!(tokens["items"][0]["used_from"], SITE.to_string());
    assert!(!tokens.to_string().contains("cvj1"));
}

#[tokio::test]
async fn every_refusal_has_its_cause() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let token = admin.join_token("plant").await;
    let other = admin.join_token("other").await;

    assert_eq!(cause(Site::new().redeem_with(&house, "no-such-id", &[0; 32]).await), Cause::TokenMalformed);
    assert_eq!(cause(Site::new().redeem_with(&house, "aaaaaaaaaaaaa", &[0; 32]).await), Cause::TokenUnknown);
    let id = token.id().to_string();
    assert_eq!(cause(Site::new().redeem_with(&house, &id, &[0; 32]).await), Cause::TokenUnknown);
    assert_eq!(cause(Site::new().redeem_with(&house, &id, other.secret()).await), Cause::TokenUnknown);
    assert_eq!(cause(Site::new().redeem_with(&house, &id, &[]).await), Cause::TokenUnknown);
    let old = Site { version: "0.0.9", ..Site::new() };
    assert_eq!(cause(old.redeem(&house, &token).await), Cause::VersionTooOld);
    let slow = Site { clock_off_ms: -6 * 60_000, ..Site::new() };
    let turned = slow.redeem(&house, &token).await.unwrap_err();
    assert_eq!((turned.cause, turned.detail.as_str()), (Cause::ClockSkew, "6 minutes behind"));
    let rubbish = Site { csr: vec![0x30, 0x82, 0xff, 0xff], ..Site::new() };
    assert_eq!(cause(rubbish.redeem(&house, &token).await), Cause::CsrInvalid);
    admin
        .json_with(axum::http::Method::PUT, "/clusters/plant/lock", json!({"message": "audit"}), &[])
        .await
        .ok(200);
    assert_eq!(cause(Site::new().redeem(&house, &token).await), Cause::Locked);
    admin.delete("/clusters/plant/lock").await.ok(204);

    Site::new().redeem(&house, &token).await.unwrap();
    assert_eq!(cause(Site::new().redeem(&house, &token).await), Cause::TokenUsed);
    house.hands.forward(3601);
    let admin = house.admin().await;
    assert_eq!(cause(Site::new().redeem(&house, &other).await), Cause::TokenExpired);
    admin.delete("/clusters/other").await.ok(204);
    assert_eq!(cause(Site::new().redeem(&house, &other).await), Cause::TokenUnknown);
}

#[tokio::test]
async fn a_token_is_bound_to_its_network_and_can_be_taken_back() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    admin.post("/clusters", json!({"name": "plant"})).await.ok(201);
    let path = "/clusters/plant/join-tokens";
    let made = admin.post(path, json!({"cidr": "203.0.113.0/24"})).await.ok(201);
    let token = JoinToken::parse(made["token"].as_str().unwrap()).unwrap();
    let turned = Site::new().redeem(&house, &token).await.unwrap_err();
    assert_eq!(turned.cause, Cause::TokenWrongNetwork);
    assert!(turned.detail.contains("203.0.113.0/24"), "{}", turned.detail);
    admin.delete(&format!("{path}/{}", made["id"].as_str().unwrap())).await.ok(204);
    let inside = Site { source: "203.0.113.5".parse().unwrap(), ..Site::new() };
    assert_eq!(cause(inside.redeem(&house, &token).await), Cause::TokenRevoked);
}

async fn of_fifty_with_one_token_one_wins(on: On) {
    let house = Arc::new(House::open(on).await);
    let admin = house.admin().await;
    let token = Arc::new(admin.join_token("plant").await);
    let tries = (0..50).map(|_| {
        let (house, token) = (house.clone(), token.clone());
        tokio::spawn(async move { Site::new().redeem(&house, &token).await })
    });
    let outcomes: Vec<_> = futures::future::join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let won = outcomes.iter().filter(|o| o.is_ok()).count();
    assert_eq!(won, 1);
    for lost in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(lost.cause, Cause::TokenUsed, "{lost:?}");
    }
    let agents = admin.get("/agents").await.ok(200);
    assert_eq!(agents["items"].as_array().unwrap().len(), 1, "{agents}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_with_one_token_one_wins_on_sqlite() {
    of_fifty_with_one_token_one_wins(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_with_one_token_one_wins_on_postgres() {
    of_fifty_with_one_token_one_wins(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tries_with_one_key_get_one_certificate() {
    let house = Arc::new(House::open(On::Postgres).await);
    let token = Arc::new(house.admin().await.join_token("plant").await);
    let site = Arc::new(Site::new());
    let tries = (0..20).map(|_| {
        let (house, token, site) = (house.clone(), token.clone(), site.clone());
        tokio::spawn(async move { site.redeem(&house, &token).await.unwrap().certificate.chain })
    });
    let chains: Vec<_> = futures::future::join_all(tries).await.into_iter().map(Result::unwrap).collect();
    assert!(chains.iter().all(|c| *c == chains[0]));
}

#[tokio::test]
async fn a_later_agent_takes_the_cluster_over() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let first_site = Site::new();
    let first = first_site.redeem(&house, &admin.join_token("plant").await).await.unwrap();
    let made = admin.post("/clusters/plant/join-tokens", json!({})).await.ok(201);
    let token = JoinToken::parse(made["token"].as_str().unwrap()).unwrap();
    let second = Site::new().redeem(&house, &token).await.unwrap();
    let caller = house.caller().await;
    assert_eq!(house.app.agent(&caller, first.agent).await.unwrap().state, AgentState::Revoked);
    let key = culvert_controller::app::App::agent_key(caller.org(), first.agent);
    assert_eq!(cause(house.app.renew(key, &first_site.csr, SITE).await), Cause::Revoked);
    let shown = admin.get("/clusters/plant").await.ok(200);
    assert_eq!(shown["agent"]["id"], second.agent.to_string());
}

#[tokio::test]
async fn certificates_are_renewed_with_a_counter() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let site = Site::new();
    let enrolled = site.redeem(&house, &admin.join_token("plant").await).await.unwrap();
    let caller = house.caller().await;
    let key = culvert_controller::app::App::agent_key(caller.org(), enrolled.agent);
    let fresh = KeyPair::generate().unwrap();
    let renewed = house.app.renew(key, &csr::make(&fresh).unwrap(), SITE).await.unwrap();
    assert_eq!(renewed.generation, 2);
    let leaf = CertificateDer::from(renewed.certificate.chain[0].clone());
    let chain = [leaf, CertificateDer::from(renewed.certificate.chain[1].clone())];
    let peer = verify_peer(&chain, house.app.roots(), house.app.domain(), house.hands.now()).unwrap();
    assert_eq!(peer.key, fresh.pin());
    admin.delete("/clusters/plant").await.ok(204);
    assert_eq!(cause(house.app.renew(key, &site.csr, SITE).await), Cause::Revoked);
}

#[tokio::test]
async fn an_agent_that_was_away_for_days_comes_back_with_its_key() {
    let house = House::sqlite().await;
    let site = Site::new();
    let token = house.admin().await.join_token("plant").await;
    let enrolled = site.redeem(&house, &token).await.unwrap();
    house.hands.forward(3 * 24 * 3600);
    let leaf = enrolled.certificate.chain[0].clone();
    let stranger = Site::new();
    assert_eq!(cause(stranger.rejoin(&house, &leaf, 1).await), Cause::CertificateUnknown);
    assert_eq!(cause(site.rejoin(&house, &leaf, 2).await), Cause::CertificateUnknown);
    assert_eq!(cause(site.rejoin(&house, b"rubbish", 1).await), Cause::CertificateUnknown);
    assert_eq!(site.rejoin(&house, &leaf, 1).await.unwrap(), 2);
    // The answer was lost: the same certificate again is no second holder.
    assert_eq!(site.rejoin(&house, &leaf, 1).await.unwrap(), 3);
}

#[tokio::test]
async fn a_key_in_two_places_locks_both_out() {
    let house = House::sqlite().await;
    let site = Site::new();
    let token = house.admin().await.join_token("plant").await;
    let enrolled = site.redeem(&house, &token).await.unwrap();
    let leaf = enrolled.certificate.chain[0].clone();
    let caller = house.caller().await;
    let key = culvert_controller::app::App::agent_key(caller.org(), enrolled.agent);
    let renewed = house.app.renew(key, &site.csr, SITE).await.unwrap();
    // The owner was seen with its second certificate.
    let chain: Vec<_> = renewed.certificate.chain.iter().map(|c| CertificateDer::from(c.clone())).collect();
    let peer = verify_peer(&chain, house.app.roots(), house.app.domain(), house.hands.now()).unwrap();
    let arrival = culvert_controller::app::Arrival {
        agent: key,
        serial: peer.serial.as_str(),
        version: "0.1.0",
        instance: [1; 16],
        last_epoch: 0,
        standby: false,
        clock_ms: house.hands.ms(),
        source: (SITE, 7).into(),
    };
    assert_eq!(house.app.admit(arrival).await.unwrap().epoch, 1);
    let mut revocations = house.app.revocations();
    revocations.mark_unchanged();
    // Somebody with a copy of the first comes back with it.
    assert_eq!(cause(site.rejoin(&house, &leaf, 1).await), Cause::CounterMismatch);
    assert!(revocations.has_changed().unwrap());
    assert_eq!(cause(house.app.admit(arrival).await), Cause::Locked);
    assert_eq!(cause(house.app.renew(key, &site.csr, SITE).await), Cause::Locked);
    let diagnosis = house.admin().await.get("/clusters/plant/diagnosis").await.ok(200);
    assert!(diagnosis["summary"].as_str().unwrap().contains("two places"), "{diagnosis}");
}

#[tokio::test]
async fn admission_refuses_with_the_cause_and_remembers_it() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let site = Site::new();
    let enrolled = site.redeem(&house, &admin.join_token("plant").await).await.unwrap();
    let caller = house.caller().await;
    let peer =
        verify_peer(&chain(&enrolled), house.app.roots(), house.app.domain(), house.hands.now()).unwrap();
    let good = culvert_controller::app::Arrival {
        agent: culvert_controller::app::App::agent_key(caller.org(), enrolled.agent),
        serial: peer.serial.as_str(),
        version: "0.1.0",
        instance: [1; 16],
        last_epoch: 0,
        standby: false,
        clock_ms: house.hands.ms(),
        source: (SITE, 7).into(),
    };
    house.app.admit(good).await.unwrap();
    let foreign = culvert_controller::app::Arrival { serial: "00", ..good };
    assert_eq!(cause(house.app.admit(foreign).await), Cause::CertificateUnknown);
    house.hands.forward(120);
    let late = culvert_controller::app::Arrival { clock_ms: house.hands.ms() + 3_600_000, ..good };
    assert_eq!(cause(house.app.admit(late).await), Cause::ClockSkew);
    let shown = admin.get("/clusters/plant").await.ok(200);
    assert_eq!(shown["agent"]["last_refusal"]["code"], "clock_skew");
    assert!(shown["agent"]["last_refusal"]["fix"].as_str().unwrap().contains("clock"));
    let diagnosis = admin.get("/clusters/plant/diagnosis").await.ok(200);
    assert_eq!(diagnosis["lights"][4]["state"], "failed", "{diagnosis}");
    assert!(diagnosis["lights"][4]["detail"].as_str().unwrap().contains("60 minutes ahead"), "{diagnosis}");
}

#[tokio::test]
async fn attempts_tell_what_the_doors_saw() {
    let house = House::sqlite().await;
    let admin = house.admin().await;
    let token = admin.join_token("plant").await;
    let caller = house.caller().await;
    let which = "plant".parse::<ClusterRef>().unwrap();

    let attempt = house.app.attempt_reached(&token.id(), SITE).await.unwrap();
    house.app.stop_attempt(attempt, Stage::Tls, Outcome::Failed, Cause::WrongPin, "alert").await;
    let (diagnosis, attempts) = house.app.diagnosis(&caller, &which).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].cause), (1, Some(Cause::WrongPin)));
    assert_eq!(diagnosis.lights[1].state, LightState::Failed);
    assert_eq!(diagnosis.lights[0].source, Some(SITE));

    let unknown = "aaaaaaaaaaaaa".parse().unwrap();
    assert!(house.app.attempt_reached(&unknown, SITE).await.is_none());

    let attempt = house.app.attempt_reached(&token.id(), SITE).await;
    let site = Site { attempt, ..Site::new() };
    site.redeem(&house, &token).await.unwrap();
    let shown = admin.get("/clusters/plant/diagnosis").await.ok(200);
    let states: Vec<_> =
        shown["lights"].as_array().unwrap().iter().map(|l| l["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["on", "on", "on", "on", "off", "off"], "{shown}");
    assert_eq!(shown["attempts"][0]["stage"], "identity");
    assert_eq!(shown["attempts"][0]["agent_version"], "0.1.0");
    assert_eq!(shown["attempts"][1]["code"], "wrong_pin");
    // A connection that ended without a word is given up after a while.
    let silent = admin.join_token("silent").await;
    house.app.attempt_reached(&silent.id(), SITE).await.unwrap();
    house.hands.forward(300);
    assert!(house.app.give_up_attempts().await.unwrap() >= 1);
}
