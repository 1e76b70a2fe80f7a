//! What can happen to the line while calls are on it.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::faults::{FaultProxy, Faults, Flow};
use culvert_integration::process;
use culvert_integration::wait;
use futures::future::try_join_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::scene::{PROMPT, Scene, Site, cut, shared, story, told};

/// What a call is told whose connection went away under it.
const LOST: &[&str] = &["was lost", "gave the request up"];

/// A line that fails under two calls, one without an answer and one in the middle of it.
async fn fails(
    name: &'static str,
    how: impl AsyncFnOnce(&Scene, &mut Site) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let scene = shared().await?;
    let mut site = scene.site(name).await?;
    let before = scene.epoch(&site).await?;
    let (pending, mut open) = (site.unanswered(name), site.begun("/watch", name).await?);
    open.read(1).await?;
    scene.came(name).await?;
    how(scene, &mut site).await.context(name)?;
    told(pending, LOST).await.context(name)?;
    cut(open).await.context(name)?;
    scene.back(&site, before).await.context(name)?;
    scene.freed(name).await.context(name)
}

/// All of these wait for somebody's patience to end, so they do it together.
#[test]
fn a_line_that_fails_ends_its_calls_and_is_replaced() {
    story(async {
        tokio::try_join!(
            fails("reset", async |_, site| {
                site.line.reset();
                Ok(())
            }),
            fails("half-open-agent", async |_, site| {
                site.line.leave_agents_half_open();
                Ok(())
            }),
            fails("half-open-controller", async |_, site| {
                site.line.leave_controller_half_open();
                Ok(())
            }),
            fails("black-hole", async |scene, site| {
                site.line.set(Faults::black_hole());
                scene.gone(site).await?;
                site.line.set(Faults::default());
                Ok(())
            }),
            fails("dead-end", async |scene, site| {
                site.line.set(Faults { dead_end: true, ..Faults::default() });
                site.line.reset();
                scene.gone(site).await?;
                site.agent.names_cause("tls_timeout").await?;
                site.line.set(Faults::default());
                Ok(())
            }),
            fails("restarted", async |scene, site| {
                site.line.stop().await;
                scene.gone(site).await?;
                site.line.resume().await
            }),
            an_idle_line_is_kept_alive(),
        )
        .map(drop)
    });
}

/// A firewall forgets what is silent for 15 s; heartbeats alone come every 20 s.
async fn an_idle_line_is_kept_alive() -> anyhow::Result<()> {
    let limit = Duration::from_secs(15);
    let scene = shared().await?;
    let site = scene.site("idle").await?;
    site.line.set(Faults { forgotten_after: Some(limit), ..Faults::default() });
    let (before, began) = (scene.epoch(&site).await?, OffsetDateTime::now_utc());
    wait::until(limit * 6, || async {
        let agent = scene.stage.admin.agent_of(&site.cluster).await?;
        let beat = agent["last_seen_at"].as_str().with_context(|| format!("never seen: {agent}"))?;
        let beat = OffsetDateTime::parse(beat, &Rfc3339)?;
        ensure!(beat > began + limit * 2, "no heartbeat since two times the limit: {agent}");
        Ok(())
    })
    .await?;
    ensure!(scene.epoch(&site).await? == before, "forgotten:\n{}", site.agent.log());
    site.works().await
}

#[test]
fn a_slow_line_carries_both_ways_and_small_calls_beside() {
    story(async {
        let scene = shared().await?;
        let site = scene.site("slow").await?;
        site.line.set(Faults::slow(Duration::from_millis(60)));
        for _ in 0..3 {
            site.works().await.context("with latency")?;
        }
        let narrow = Flow { bytes_per_second: Some(8 << 20), ..Flow::default() };
        let latency = Duration::from_millis(20);
        let narrow = Flow { latency, ..narrow };
        site.line.set(Faults { up: narrow.clone(), down: narrow, ..Faults::default() });
        let mut bulk = site.begun("/bulk?n=16777216", "narrow").await?;
        let (whole, small) = tokio::join!(bulk.rest(), async {
            for _ in 0..5 {
                site.works().await?;
            }
            anyhow::Ok(())
        });
        small.context("beside bulk on a narrow line")?;
        ensure!(whole? == 16 << 20);
        scene.freed("narrow").await
    });
}

/// A balancer that sees nothing of TLS, and of whose targets one is dead.
#[test]
fn a_balancer_with_a_dead_target_only_costs_another_attempt() {
    story(async {
        let scene = shared().await?;
        let dead = process::free_address("127.0.0.1")?;
        let alive = scene.stage.controller.address();
        let line = FaultProxy::balancing(vec![dead, alive]).await?;
        let site = scene.site_by("balanced", line, |agent| agent).await?;
        ensure!(site.line.accepted() > 1, "the dead one was never tried");
        let before = scene.epoch(&site).await?;
        // Elsewhere, as after a change in DNS: what lives stays, what is new goes there.
        let other = FaultProxy::start(alive).await?;
        site.line.lead_to(vec![other.address()]);
        try_join_all((0..4).map(|_| site.works())).await?;
        site.line.reset();
        tokio::time::timeout(PROMPT * 6, scene.back(&site, before)).await.context("not back")??;
        ensure!(other.accepted() > 0, "not there");
        Ok(())
    });
}
