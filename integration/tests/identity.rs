//! Story: each end knows the other by its key. A wrong controller, a box in between,
//! a wrong clock, an old version and a second holder are each named as what they are.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;
use culvert_integration::hand::{Hand, enrol_request, hello, refusal};
use culvert_integration::proxy::{INSPECTOR, Interceptor};
use culvert_integration::stage::{Stage, ground};
use culvert_integration::wait;
use culvert_pki::csr;
use culvert_pki::key::KeyPair;
use culvert_pki::token::JoinToken;
use culvert_tunnel::{LinkEnd, RefusalCode};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn the_token_of_another_controller_is_not_shown_to_this_one() -> anyhow::Result<()> {
    let (ours, theirs, ground) = (Stage::open().await?, Stage::open().await?, ground().await?);
    let (cluster, agent) = ours.newcomer("plant", ground).await?;
    let mut agent = agent.dialling(theirs.controller.address().to_string());
    agent.start()?;
    agent.names_cause("wrong_pin").await?;
    let pin =
        theirs.admin.info["ca"]["pin"].as_str().unwrap_or_default().trim_start_matches("sha256:").to_owned();
    ensure!(agent.log().contains(&pin), "the key that was met is not named:\n{}", agent.log());
    let tokens = ours.admin.get(&format!("/clusters/{cluster}/join-tokens")).await?.ok()?;
    ensure!(tokens["items"][0]["state"] == "active", "{tokens}");
    Ok(())
}

#[tokio::test]
async fn an_interceptor_is_named_by_its_issuer() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let interceptor = Interceptor::start(HERE, stage.controller.address()).await?;
    let (cluster, agent) = stage.newcomer("plant", ground).await?;
    let mut agent = agent.dialling(interceptor.address().to_string()).flag("--carrier", "direct");
    agent.start()?;
    agent.names_cause("tls_intercepted").await?;
    ensure!(agent.log().contains(INSPECTOR), "the issuer is not named:\n{}", agent.log());
    // The agent goes on trying, and connects as soon as nobody is in between.
    agent.stop().await?;
    agent.dial(stage.controller.address().to_string());
    agent.start()?;
    agent.connected(&stage.admin, &cluster).await?;
    // One that is enrolled meets the same box later.
    agent.stop().await?;
    agent.dial(interceptor.address().to_string());
    agent.start()?;
    agent.names_cause("tls_intercepted").await?;
    ensure!(agent.log().contains(INSPECTOR), "the issuer is not named:\n{}", agent.log());
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_off_is_named_at_the_controller() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;

    // So far off that the controller's certificate is not valid: TLS does not come about.
    for off in [-20 * 365 * 86_400_i64, 20 * 365 * 86_400] {
        let hand = Hand::new(&stage.controller)?.with_clock_off_by(off);
        ensure!(hand.reach(&token).await.is_err());
        let attempt = stage.admin.attempt_stopped(&cluster, "clock_skew").await?;
        ensure!(attempt["stage"] == "tls", "{attempt}");
    }
    // Less far off: TLS comes about, and the request tells the time.
    let hand = Hand::new(&stage.controller)?;
    let mut request = enrol_request(&token, csr::make(&KeyPair::generate()?)?);
    request.clock_ms -= 10 * 60 * 1000;
    let Err(status) = hand.reach(&token).await?.enrol(request).await else {
        anyhow::bail!("a clock ten minutes behind was taken");
    };
    ensure!(refusal(&status) == "clock_skew", "{status:?}");
    wait::until(Duration::from_secs(5), || async {
        let attempt = stage.admin.attempt_stopped(&cluster, "clock_skew").await?;
        ensure!(attempt["stage"] == "token" && attempt["outcome"] == "refused", "{attempt}");
        Ok(())
    })
    .await?;

    // And once enrolled, in its hello.
    let held = hand.enrol(&token).await?;
    let mut late = hello();
    late.clock_ms += 10 * 60 * 1000;
    let end = hand.reach_as(&held, true).await?.session(late).await?;
    ensure!(matches!(&end, LinkEnd::Refused(refusal) if refusal.code == RefusalCode::ClockSkew), "{end:?}");
    let agent = refused_for(&stage, &cluster, "clock_skew").await?;
    ensure!(
        agent["last_refusal"]["source"].as_str().is_some_and(|from| from.starts_with("127.0.0.1")),
        "{agent}"
    );
    Ok(())
}

/// The agent's record, once it says that it was last refused with `code`.
async fn refused_for(stage: &Stage, cluster: &str, code: &str) -> anyhow::Result<serde_json::Value> {
    wait::until(Duration::from_secs(10), || async {
        let agent = stage.admin.agent_of(cluster).await?;
        ensure!(agent["last_refusal"]["code"] == code, "not refused with {code}: {agent}");
        ensure!(agent["last_refusal"]["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{agent}");
        Ok(agent)
    })
    .await
}

#[tokio::test]
async fn an_agent_that_is_too_old_is_told_so_at_both_ends() -> anyhow::Result<()> {
    let ground = ground().await?;
    let mut stage = Stage::open_with("[agents]\nminimum_version = \"99.0.0\"\n").await?;
    let (cluster, mut agent) = stage.newcomer("plant", ground).await?;
    agent.start()?;
    agent.names_cause("version_too_old").await?;
    stage.admin.attempt_stopped(&cluster, "version_too_old").await?;
    agent.stop().await?;

    // The same when the controller moves on while the agent is away.
    stage.controller.stop().await?;
    stage.controller.reconfigure("");
    stage.controller.resume().await?;
    agent.start()?;
    agent.connected(&stage.admin, &cluster).await?;
    stage.controller.stop().await?;
    stage.controller.reconfigure("[agents]\nminimum_version = \"99.0.0\"\n");
    stage.controller.resume().await?;
    agent.names_cause("version_too_old").await?;
    refused_for(&stage, &cluster, "version_too_old").await.map(drop)
}

#[tokio::test]
async fn of_two_holders_the_newest_wins_and_the_other_waits_in_reserve() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    let first = stage.admin.agent_of(&site.cluster).await?;

    let mut second = site.agent.copy()?;
    second.start()?;
    newer_session(&stage, &site.cluster, &first).await?;
    // The first is told who took over, and does not fight.
    site.agent.says("another agent took over", Duration::from_secs(20)).await?;
    let taken = newer_session(&stage, &site.cluster, &first).await?;
    ensure!(taken["id"] == first["id"], "{taken}");
    wait::until(Duration::from_secs(10), || async {
        let diagnosis = stage.admin.diagnosis(&site.cluster).await?.to_string();
        let agent = stage.admin.agent_of(&site.cluster).await?.to_string();
        let log = stage.controller.log();
        ensure!((diagnosis + &agent).contains("duplicate_identity"), "not noticed: {agent}\n{log}");
        Ok(())
    })
    .await?;

    // It comes back when the other one stops.
    second.stop().await?;
    let back = newer_session(&stage, &site.cluster, &taken).await?;
    ensure!(back["id"] == first["id"], "{back}");
    site.agent.stop().await
}

/// Waits for a session of the cluster that is newer than `before`.
async fn newer_session(
    stage: &Stage,
    cluster: &str,
    before: &serde_json::Value,
) -> anyhow::Result<serde_json::Value> {
    wait::until(Duration::from_secs(45), || async {
        let agent = stage.admin.agent_of(cluster).await?;
        let newer = agent["epoch"].as_u64() > before["epoch"].as_u64();
        ensure!(agent["state"] == "connected" && newer, "no newer session than {before}: {agent}");
        Ok(agent)
    })
    .await
}

/// A certificate is no secret: only its key, on the connection where it signed, proves
/// that an agent comes back.
#[tokio::test]
async fn a_proof_of_return_is_good_for_its_key_and_connection_alone() -> anyhow::Result<()> {
    let stage = Stage::open().await?;
    let cluster = stage.admin.cluster_create("plant").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&cluster).await?)?;
    let hand = Hand::new(&stage.controller)?;
    let held = hand.enrol(&token).await?;

    let (here, elsewhere) = (hand.reach_as(&held, false).await?, hand.reach_as(&held, false).await?);
    let proof = here.rejoin_request(&held, &held.key, held.generation)?;
    let other = here.rejoin_request(&held, &KeyPair::generate()?, held.generation)?;
    let ahead = here.rejoin_request(&held, &held.key, held.generation + 5)?;
    let mut altered = proof.clone();
    altered.generation += 1;
    for (what, reached, request) in [
        ("overheard", &elsewhere, proof.clone()),
        ("made with another key", &here, other),
        ("with a counter never given", &here, ahead),
        ("altered", &here, altered),
    ] {
        let Err(status) = reached.rejoin(request).await else { anyhow::bail!("a proof {what} was taken") };
        ensure!(refusal(&status) == "certificate_unknown", "{what}: {status:?}");
    }
    let answer = here.rejoin(proof).await?;
    ensure!(answer.generation == held.generation + 1, "{answer:?}");
    Ok(())
}

/// The certificate of one agent opens nothing that belongs to a person.
#[tokio::test]
async fn an_agents_certificate_is_nobody_at_the_gateway() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let other = stage.admin.cluster_create("other").await?;
    let token = JoinToken::parse(&stage.admin.join_token(&other).await?)?;
    let held = Hand::new(&stage.controller)?.enrol(&token).await?;
    let identity = culvert_pki::tls::ClientIdentity { chain: &held.chain, key: &held.key };
    let tls = culvert_pki::tls::trusted_client(
        &held.roots,
        Some(identity),
        &[b"http/1.1"],
        culvert_integration::stage::clock(),
    )?;
    let door =
        culvert_integration::door::Door::new(stage.controller.address(), "kube.culvert.internal", tls)?;
    let gateway = culvert_integration::gateway::Gateway::at_door(door, &site.cluster);
    // Either the handshake or the gateway refuses; what does not come is an answer.
    let Ok(answer) = gateway.get("/version").await else { return Ok(()) };
    ensure!(answer.status == 401 || answer.status == 403, "{answer:?}");
    Ok(())
}

/// A state that cannot be read stays as it is, for somebody to look at.
#[tokio::test]
async fn a_damaged_state_is_not_replaced() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    site.agent.stop().await?;
    let mut broken = site.agent.copy()?;
    let file = broken.path("state/identity.json");
    let whole = std::fs::read(&file)?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
    std::fs::write(&file, &half)?;
    broken.start()?;
    ensure!(broken.ended().await?.code() == Some(1), "{}", broken.log());
    ensure!(broken.log().contains("JSON"), "{}", broken.log());
    ensure!(std::fs::read(&file)? == half, "a state that could not be read was written over");
    Ok(())
}
