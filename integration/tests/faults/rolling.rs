//! A rolling update of an agent: the next pod takes over while the old one still has calls.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::agent::Agent;
use culvert_integration::gateway::Gateway;
use culvert_integration::process::Signal;
use culvert_integration::stage::{Enrolled, Stage, ground};
use culvert_integration::wait;
use futures::future::try_join_all;

use crate::scene::{CROWDED, PROMPT, RECOVERY, story};

/// The Secret in which the chart lets an agent keep its state.
const STATE: (&str, &str) = ("culvert-system", "culvert-agent-state");

/// What always has something to say of itself, in a namespace that every cluster has.
const WATCH: &str = "/api/v1/namespaces/kube-system/configmaps?watch=1";

/// Small calls, one after the other, until told; each must be answered.
async fn caller(gateway: &Gateway, answered: &AtomicUsize, done: &AtomicBool) -> anyhow::Result<()> {
    while !done.load(Ordering::SeqCst) {
        let answer = tokio::time::timeout(PROMPT, gateway.get("/version")).await;
        answer.context("a small call hangs")??.ok().context("during the update")?;
        answered.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Waits until so many more calls were answered.
async fn more(answered: &AtomicUsize, calls: usize) -> anyhow::Result<()> {
    let before = answered.load(Ordering::SeqCst);
    wait::until(RECOVERY, || async {
        let now = answered.load(Ordering::SeqCst);
        ensure!(now >= before + calls, "{now} answered, {before} before");
        Ok(())
    })
    .await
}

/// What a Deployment does: starts the next pod, waits until it is ready, ends the old one.
async fn update(
    stage: &Stage,
    site: &mut Enrolled,
    next: &mut Agent,
    answered: &AtomicUsize,
) -> anyhow::Result<()> {
    let watch = stage.gateway_as_admin(&site.cluster)?;
    let mut watch = watch.watch(WATCH).await?;
    more(answered, 50).await?;
    next.start()?;
    next.says("connected connection=1", RECOVERY).await?;
    site.agent.says("the next process of this agent took over", RECOVERY).await?;
    more(answered, 50).await?;
    // The old one carries the watch until it is told to stop, and its grace has passed.
    let name = format!("rolled-{}", uuid::Uuid::new_v4().simple());
    let made = ground().await?.plane.kubectl(&["-n", "kube-system", "create", "configmap", &name]).await?;
    ensure!(made.status.success(), "{made:?}");
    while watch.event().await?["object"]["metadata"]["name"] != name.as_str() {}
    drop(watch);
    site.agent.signal(Signal::Term)?;
    let status = site.agent.ended().await?;
    ensure!(status.success(), "{status}: {}", site.agent.log());
    more(answered, 50).await
}

#[test]
fn the_next_pod_takes_over_and_no_call_is_lost() {
    story(async {
        let (stage, ground) = (Stage::open_with(CROWDED).await?, ground().await?);
        let cluster = stage.admin.cluster_create("rolling").await?;
        let token = stage.admin.join_token(&cluster).await?;
        let (namespace, name) = STATE;
        ground.plane.get(&["-n", namespace, "create", "secret", "generic", name]).await?;
        let agent = Agent::new(&stage.controller, &ground.kubeconfig, &token)?;
        let agent = agent.keeping_in_secret(format!("{namespace}/{name}"));
        let agent = agent.flag("--data-services", "false");
        let mut site = stage.enrol_as(cluster, agent).await?;
        let mut next = site.agent.next_pod()?;
        let gateway = stage.gateway_as_admin(&site.cluster)?;
        let (answered, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let updating = async {
            let updated = update(&stage, &mut site, &mut next, &answered).await;
            done.store(true, Ordering::SeqCst);
            updated
        };
        let callers = try_join_all((0..4).map(|_| caller(&gateway, &answered, &done)));
        let both = async { tokio::try_join!(updating, callers) };
        tokio::time::timeout(Duration::from_secs(240), both).await.context("a call hangs")??;
        let agent = stage.admin.agent_of(&site.cluster).await?.to_string();
        let said = stage.admin.diagnosis(&site.cluster).await?.to_string() + &agent;
        ensure!(!said.contains("duplicate_identity"), "taken for a copied identity: {said}");
        Ok(())
    });
}
