//! Story: a join token is used once, in time, from where it may be, for its own
//! cluster; whoever is refused reads the same cause at both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use culvert_integration::agent::Agent;
use culvert_integration::faults::{FaultProxy, Faults, Flow};
use culvert_integration::hand::{Hand, enrol_request, refusal};
use culvert_integration::postgres::Postgres;
use culvert_integration::stage::{Ground, Stage, ground};
use culvert_integration::wait;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::pin::Pin;
use culvert_pki::token::JoinToken;
use serde_json::json;
use sha2::{Digest, Sha256};

/// An agent that comes with `token` is refused with `code`, and both ends say so.
async fn refused(
    stage: &Stage,
    ground: &Ground,
    cluster: &str,
    token: &str,
    code: &str,
) -> anyhow::Result<()> {
    let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, token)?;
    agent.start()?;
    agent.names_cause(code).await?;
    let attempt = stage.admin.attempt_stopped(cluster, code).await?;
    ensure!(attempt["outcome"] == "refused" && attempt["stage"] == "token", "{attempt}");
    // Another try would end the same, so it does not try again.
    agent.gave_up().await?;
    let secret = token.split('.').nth(2).unwrap_or(token).to_owned();
    ensure!(!agent.log().contains(&secret), "the agent's log shows the token");
    ensure!(!stage.controller.log().contains(&secret), "the controller's log shows the token");
    Ok(())
}

#[tokio::test]
async fn a_second_use_is_refused() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = stage.admin.join_token(&cluster).await?;
    let mut first = Agent::new(&stage.controller, &ground.kubeconfig, &token)?;
    first.start()?;
    first.connected(&stage.admin, &cluster).await?;
    let agent = stage.admin.agent_of(&cluster).await?;
    refused(&stage, ground, &cluster, &token, "token_used").await?;
    // Whoever came first stays.
    first.connected(&stage.admin, &cluster).await?;
    ensure!(stage.admin.agent_of(&cluster).await?["epoch"] == agent["epoch"]);
    Ok(())
}

#[tokio::test]
async fn an_old_a_deleted_and_a_forged_token_are_refused() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;

    let forged = forged(&stage.admin.join_token(&cluster).await?, |parts| parts[2] = base64url(&[7; 32]))?;
    refused(&stage, ground, &cluster, &forged, "token_unknown").await?;

    let old = stage.admin.join_token(&cluster).await?;
    let id = JoinToken::parse(&old)?.id();
    let past = format!("UPDATE join_tokens SET expires_at = created_at - 1 WHERE public_id = '{id}'");
    stage.controller.rewrite(&past).await?;
    refused(&stage, ground, &cluster, &old, "token_expired").await?;

    let path = format!("/clusters/{cluster}/join-tokens");
    let made = stage.admin.post(&path, &json!({})).await?.ok()?;
    let text = |part: &str| made[part].as_str().context("a token has an id and a text").map(str::to_owned);
    stage.admin.delete(&format!("{path}/{}", text("id")?)).await?.ok()?;
    refused(&stage, ground, &cluster, &text("token")?, "token_revoked").await?;

    ensure!(stage.admin.get(&format!("/clusters/{cluster}")).await?.ok()?["state"] == "pending");
    Ok(())
}

#[tokio::test]
async fn a_token_is_bound_to_its_network() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;
    let elsewhere = stage.admin.join_token_with(&cluster, &json!({ "cidr": "192.0.2.0/24" })).await?;
    refused(&stage, ground, &cluster, &elsewhere, "token_wrong_network").await?;
    let here = stage.admin.join_token_with(&cluster, &json!({ "cidr": "127.0.0.0/8" })).await?;
    let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, &here)?;
    agent.start()?;
    agent.connected(&stage.admin, &cluster).await?;
    Ok(())
}

/// What nobody can put down to a cluster is told to the agent alone, and logged.
#[tokio::test]
async fn a_token_of_nothing_is_refused() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = stage.admin.join_token(&cluster).await?;

    let unknown = forged(&token, |parts| parts[1] = "aaaaaaaaaaaaa".to_owned())?;
    stage.admin.delete(&format!("/clusters/{cluster}")).await?.ok()?;
    for token in [&unknown, &token] {
        let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, token)?;
        agent.start()?;
        agent.names_cause("token_unknown").await?;
        agent.gave_up().await?;
    }
    wait::until(Duration::from_secs(5), || async {
        let log = stage.controller.log();
        ensure!(log.contains("token_unknown"), "the controller says nothing of it:\n{log}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_malformed_token_goes_nowhere() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = stage.admin.join_token(&cluster).await?;
    let half = token.get(..token.len() / 2).unwrap_or_default();
    for (text, reason) in [(half, "checksum"), ("", "empty"), (stage.admin.bearer(), "session")] {
        let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, text)?;
        agent.start()?;
        ensure!(agent.ended().await?.code() == Some(64), "{}", agent.log());
        ensure!(agent.log().to_lowercase().contains(reason), "no {reason:?} in {}", agent.log());
    }
    // What the program would not send, sent by hand.
    let good = JoinToken::parse(&token)?;
    let reached = Hand::new(&stage.controller)?.reach(&good).await?;
    let request = enrol_request(&good, csr::make(&KeyPair::generate()?)?);
    for (id, secret) in [("", 32), ("not an id \n", 32), ("aaaaaaaaaaaaa", 0), ("aaaaaaaaaaaaa", 10_000)] {
        let mut bad = request.clone();
        (bad.token_id, bad.token_secret) = (id.to_owned(), Bytes::from(vec![1; secret]));
        let Err(status) = reached.enrol(bad).await else {
            anyhow::bail!("{id:?} with {secret} bytes was taken")
        };
        ensure!(["token_malformed", "token_unknown"].contains(&refusal(&status).as_str()), "{status:?}");
    }
    // All of that has cost the token nothing.
    reached.enrol(request).await.context("the good one")?;
    Ok(())
}

#[tokio::test]
async fn fifty_at_once_get_one_certificate() -> anyhow::Result<()> {
    fifty(&Stage::open().await?).await
}

#[tokio::test]
async fn on_postgresql_fifty_at_once_get_one_certificate() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    fifty(&Stage::open_with(&format!("[database]\nurl = \"{}\"\n", postgres.url())).await?).await
}

async fn fifty(stage: &Stage) -> anyhow::Result<()> {
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let hand = Hand::new(&stage.controller)?;
    // All are at the door before the first one asks.
    let reached = futures::future::try_join_all((0..50).map(|_| hand.reach(&token))).await?;
    let requests: Vec<_> = reached
        .iter()
        .map(|reached| anyhow::Ok(reached.enrol(enrol_request(&token, csr::make(&KeyPair::generate()?)?))))
        .collect::<Result<_, _>>()?;
    let mut outcomes = BTreeMap::<String, u32>::new();
    for answer in futures::future::join_all(requests).await {
        let outcome = answer.map_or_else(|status| refusal(&status), |_| "certificate".to_owned());
        *outcomes.entry(outcome).or_default() += 1;
    }
    let expected = BTreeMap::from([("certificate".to_owned(), 1), ("token_used".to_owned(), 49)]);
    ensure!(outcomes == expected, "{outcomes:?}");
    let agents = stage.admin.get("/agents").await?.ok()?;
    ensure!(agents["items"].as_array().map(Vec::len) == Some(1), "{agents}");
    Ok(())
}

#[tokio::test]
async fn the_same_key_gets_the_same_certificate_again() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let hand = Hand::new(&stage.controller)?;
    let key = KeyPair::generate()?;
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(hand.reach(&token).await?.enrol(enrol_request(&token, csr::make(&key)?)).await?);
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    Ok(())
}

/// The agent is killed after the controller has used up the token and before the
/// agent has stored, or even seen, the certificate.
#[tokio::test]
async fn an_agent_killed_before_it_stored_its_certificate_goes_on() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let (cluster, agent) = stage.newcomer("plant", ground).await?;
    let line = FaultProxy::start(stage.controller.address()).await?;
    // The answer that carries certificates is the first large one after the handshake.
    let held = Flow { held_from: Some(600), ..Flow::default() };
    line.set(Faults { down: held, ..Faults::default() });
    let mut agent = agent.dialling(line.address().to_string());
    agent.start()?;
    wait::until(Duration::from_secs(20), || async {
        let tokens = stage.admin.get(&format!("/clusters/{cluster}/join-tokens")).await?.ok()?;
        ensure!(tokens["items"][0]["state"] == "used", "{tokens} {}", agent.log());
        Ok(())
    })
    .await?;
    agent.kill().await?;
    let first = stage.admin.agent_of(&cluster).await?;

    agent.dial(stage.controller.address().to_string());
    agent.start()?;
    agent.connected(&stage.admin, &cluster).await?;
    let now = stage.admin.agent_of(&cluster).await?;
    ensure!(now["id"] == first["id"], "{first} became {now}");
    ensure!(now["certificate_not_after"] == first["certificate_not_after"], "{first} became {now}");
    Ok(())
}

/// The token with some of its parts changed and a right checksum.
fn forged(token: &str, change: impl FnOnce(&mut Vec<String>)) -> anyhow::Result<String> {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts.pop();
    change(&mut parts);
    let body = parts.join(".");
    let checksum = base64url(Sha256::digest(body.as_bytes()).get(..4).unwrap_or_default());
    let text = format!("{body}.{checksum}");
    JoinToken::parse(&text).context("a forged token is well-formed")?;
    Ok(text)
}

fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn a_token_with_the_pin_of_another_key_keeps_its_secret() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = stage.admin.join_token(&cluster).await?;
    let pin = Pin::of_spki(b"another").base64url();
    let wrong = forged(&token, |parts| parts[3] = pin)?;
    let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, &wrong)?;
    agent.start()?;
    agent.names_cause("wrong_pin").await?;
    let attempt = stage.admin.attempt_stopped(&cluster, "wrong_pin").await?;
    ensure!(attempt["stage"] == "tls" && attempt["outcome"] == "failed", "{attempt}");
    agent.stop().await?;
    // Nothing was sent, so the right token is still good.
    let mut agent = Agent::new(&stage.controller, &ground.kubeconfig, &token)?;
    agent.start()?;
    agent.connected(&stage.admin, &cluster).await?;
    Ok(())
}
