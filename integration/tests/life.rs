//! Story: what happens to agents over months, in seconds: restarts at both ends,
//! renewal, a certificate that ran out, a stolen one, locks, and the end.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use culvert_integration::agent::{Agent, cluster_in};
use culvert_integration::gateway::Gateway;
use culvert_integration::stage::{Enrolled, Stage, ground};
use culvert_integration::wait;
use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a watch of the shared cluster always has something to say about.
const WATCH: &str = "/api/v1/namespaces/kube-system/configmaps?watch=1";

/// The longest that a live stream may outlive its right.
const CUT: Duration = Duration::from_secs(5);

/// Waits for a session that is newer than `before`; gives the agent's record.
async fn newer_session(stage: &Stage, site: &Enrolled, before: &Value) -> anyhow::Result<Value> {
    let seen = wait::until(Duration::from_secs(60), || async {
        let agent = stage.admin.agent_of(&site.cluster).await?;
        let newer = agent["epoch"].as_u64() > before["epoch"].as_u64();
        ensure!(agent["state"] == "connected" && newer, "no newer session than {before}: {agent}");
        Ok(agent)
    });
    seen.await.with_context(|| format!("the agent's log:\n{}", site.agent.log()))
}

fn moment(record: &Value, field: &str) -> anyhow::Result<OffsetDateTime> {
    let text = record[field].as_str().with_context(|| format!("no {field}: {record}"))?;
    Ok(OffsetDateTime::parse(text, &Rfc3339)?)
}

/// The counter of the newest certificate, as the diagnosis shows it.
async fn generation(stage: &Stage, cluster: &str) -> anyhow::Result<u64> {
    let diagnosis = stage.admin.diagnosis(cluster).await?;
    let light = diagnosis["lights"][3]["detail"].as_str().unwrap_or_default();
    light.rsplit(' ').next().and_then(|number| number.parse().ok()).with_context(|| format!("{diagnosis:#}"))
}

#[tokio::test]
async fn an_agent_comes_back_as_itself_without_its_token() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    let mut before = stage.admin.agent_of(&site.cluster).await?;
    std::fs::remove_file(site.agent.path("token"))?;
    for kill in [true, false] {
        if kill {
            site.agent.kill().await?
        } else {
            site.agent.stop().await?
        }
        wait::until(Duration::from_secs(10), || cluster_in(&stage.admin, &site.cluster, "disconnected"))
            .await?;
        site.agent.start()?;
        let after = newer_session(&stage, &site, &before).await?;
        ensure!(after["id"] == before["id"], "{before} became {after}");
        ensure!(after["certificate_not_after"] == before["certificate_not_after"], "{before} became {after}");
        before = after;
    }
    ensure!(generation(&stage, &site.cluster).await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_controller_comes_back_and_calls_work_again() -> anyhow::Result<()> {
    let (mut stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let gateway = stage.gateway_as_admin(&site.cluster)?;
    gateway.get("/version").await?.ok()?;
    let mut before = stage.admin.agent_of(&site.cluster).await?;
    for kill in [false, true] {
        let watch = gateway.watch(WATCH).await?;
        if kill {
            stage.controller.kill().await?
        } else {
            stage.controller.stop().await?
        }
        watch.cut(CUT).await?;
        stage.controller.resume().await?;
        // A call that comes while the agent is still on its way waits for it, or is
        // told to come again; it is never told that something is wrong.
        let early = gateway.get("/version").await?;
        let again = early.body["details"]["retryAfterSeconds"].is_u64();
        ensure!(early.status == 200 || (early.status == 503 && again), "{early:?}");
        before = newer_session(&stage, &site, &before).await?;
        gateway.get("/version").await?.ok()?;
    }
    ensure!(site.agent.log().lines().count() < 60, "too many words:\n{}", site.agent.log());
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_and_no_call_fails() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open_with("[agents]\ncertificate_seconds = 12\n").await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let gateway = stage.gateway_as_admin(&site.cluster)?;
    let before = stage.admin.agent_of(&site.cluster).await?;
    let limit = SystemTime::now() + Duration::from_secs(60);
    let mut calls = 0;
    // Three certificates; each goes over to the next while calls run.
    while generation(&stage, &site.cluster).await? < 4 {
        ensure!(SystemTime::now() < limit, "not renewed:\n{}", site.agent.log());
        gateway.get("/version").await?.ok().context("a call during a renewal")?;
        calls += 1;
    }
    let after = newer_session(&stage, &site, &before).await?;
    ensure!(after["id"] == before["id"], "{before} became {after}");
    ensure!(moment(&after, "certificate_not_after")? > moment(&before, "certificate_not_after")?, "{after}");
    ensure!(calls > 10, "only {calls} calls");
    for word in ["ERROR", "WARN"] {
        ensure!(!site.agent.log().contains(word), "a renewal is no trouble:\n{}", site.agent.log());
    }
    Ok(())
}

/// Waits until the newest certificate of the cluster's agent has run out.
async fn run_out(stage: &Stage, cluster: &str) -> anyhow::Result<()> {
    let end = moment(&stage.admin.agent_of(cluster).await?, "certificate_not_after")?;
    wait::until(Duration::from_secs(60), || async {
        let left = end - OffsetDateTime::now_utc();
        ensure!(left.is_negative(), "the certificate has {left} left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_that_was_away_too_long_comes_back() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open_with("[agents]\ncertificate_seconds = 10\n").await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    std::fs::remove_file(site.agent.path("token"))?;
    site.agent.kill().await?;
    let before = stage.admin.agent_of(&site.cluster).await?;
    let number = generation(&stage, &site.cluster).await?;
    run_out(&stage, &site.cluster).await?;
    site.agent.start()?;
    let after = newer_session(&stage, &site, &before).await?;
    ensure!(after["id"] == before["id"], "{before} became {after}");
    ensure!(generation(&stage, &site.cluster).await? > number);
    stage.gateway_as_admin(&site.cluster)?.get("/version").await?.ok().map(drop)
}

#[tokio::test]
async fn one_that_comes_back_too_late_is_refused_in_sight_of_both_ends() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open_with("[agents]\ncertificate_seconds = 10\n").await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    site.agent.kill().await?;
    let lock = format!("/clusters/{}/lock", site.cluster);
    stage.admin.put(&lock, &json!({ "message": "sold" })).await?.ok()?;
    run_out(&stage, &site.cluster).await?;
    site.agent.start()?;
    site.agent.names_cause("locked").await?;
    wait::until(Duration::from_secs(10), || async {
        let agent = stage.admin.agent_of(&site.cluster).await?;
        ensure!(agent["last_refusal"]["code"] == "locked", "not refused: {agent}");
        ensure!(agent["last_refusal"]["detail"].as_str().is_some_and(|why| why.contains("sold")), "{agent}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stolen_state_is_noticed_when_both_have_come_back() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open_with("[agents]\ncertificate_seconds = 10\n").await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    site.agent.kill().await?;
    let mut thief = site.agent.copy()?;
    let before = stage.admin.agent_of(&site.cluster).await?;
    run_out(&stage, &site.cluster).await?;

    thief.start()?;
    newer_session(&stage, &site, &before).await.with_context(|| thief.log())?;
    thief.kill().await?;
    run_out(&stage, &site.cluster).await?;

    // The owner shows a counter that somebody else has used up.
    site.agent.start()?;
    site.agent.names_cause("counter_mismatch").await?;
    site.agent.gave_up().await?;
    wait::until(Duration::from_secs(10), || async {
        let diagnosis = stage.admin.diagnosis(&site.cluster).await?;
        let summary = diagnosis["summary"].as_str().unwrap_or_default();
        ensure!(summary.contains("two places"), "not noticed: {diagnosis:#}");
        ensure!(stage.admin.agent_of(&site.cluster).await?["state"] == "revoked", "{diagnosis:#}");
        Ok(())
    })
    .await?;
    // From now on nobody is let in with that key, until the cluster is enrolled anew.
    thief.start()?;
    thief.names_cause("locked").await?;
    thief.stop().await?;
    let token = stage.admin.join_token(&site.cluster).await?;
    let mut anew = Agent::new(&stage.controller, &ground.kubeconfig, &token)?;
    anew.start()?;
    anew.connected(&stage.admin, &site.cluster).await.map(drop)
}

#[tokio::test]
async fn a_deleted_cluster_is_cut_off_at_once() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let mut site = stage.enrol("plant", ground).await?;
    let gateway = stage.gateway_as_admin(&site.cluster)?;
    let watch = gateway.watch(WATCH).await?;
    stage.admin.delete(&format!("/clusters/{}", site.cluster)).await?.ok()?;
    watch.cut(CUT).await?;
    site.agent.names_cause("revoked").await?;
    site.agent.gave_up().await?;
    ensure!(gateway.get("/version").await?.status == StatusCode::NOT_FOUND);
    // Nor does it come in again.
    site.agent.start()?;
    site.agent.names_cause("revoked").await?;
    ensure!(stage.admin.get(&format!("/clusters/{}", site.cluster)).await?.status == StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn a_lock_cuts_and_says_why_and_its_end_lets_in_again() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    let gateway = stage.gateway_as_admin(&site.cluster)?;
    let before = stage.admin.agent_of(&site.cluster).await?;
    let watch = gateway.watch(WATCH).await?;
    let (lock, why) = (format!("/clusters/{}/lock", site.cluster), "incident 4711, ask the night shift");
    stage.admin.put(&lock, &json!({ "message": why })).await?.ok()?;
    watch.cut(CUT).await?;

    site.agent.names_cause("locked").await?;
    site.agent.says(why, Duration::from_secs(5)).await?;
    let cluster = cluster_in(&stage.admin, &site.cluster, "locked").await?;
    ensure!(cluster["lock"]["message"] == why, "{cluster}");
    let answer = gateway.get("/version").await?;
    ensure!(answer.status == StatusCode::FORBIDDEN && answer.body.to_string().contains(why), "{answer:?}");
    let diagnosis = stage.admin.diagnosis(&site.cluster).await?;
    ensure!(diagnosis["summary"].as_str().is_some_and(|text| text.contains(why)), "{diagnosis:#}");

    stage.admin.delete(&lock).await?.ok()?;
    newer_session(&stage, &site, &before).await?;
    gateway.get("/version").await?.ok().map(drop)
}

#[tokio::test]
async fn a_persons_certificate_ends_what_it_began() -> anyhow::Result<()> {
    let (stage, ground) = (Stage::open().await?, ground().await?);
    let site = stage.enrol("plant", ground).await?;
    // The shortest that one can ask for.
    let seconds = 60;
    let person = Gateway::person(stage.controller.address(), &stage.admin, &site.cluster, seconds).await?;
    let watch = person.watch(WATCH).await?;
    let lived = watch.cut(Duration::from_secs(seconds) + CUT).await?;
    ensure!(lived > Duration::from_secs(50), "cut after {lived:?} already");
    // The handshake or the gateway refuses; what does not come is an answer.
    if let Ok(answer) = person.get("/version").await {
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{answer:?}");
    }
    Ok(())
}
