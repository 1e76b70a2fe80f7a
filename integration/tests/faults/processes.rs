//! What can happen to the programs while calls are under way.

use std::time::Duration;

use anyhow::{Context, ensure};
use culvert_integration::process::Signal;
use futures::future::try_join_all;
use http::Method;

use crate::scene::{CROWDED, PROMPT, RECOVERY, Scene, Site, cut, shared, story, told};

#[test]
fn an_agent_killed_in_mid_call_ends_its_calls_and_comes_back() {
    story(async {
        let scene = shared().await?;
        let mut site = scene.site("killed").await?;
        let before = scene.epoch(&site).await?;
        let (pending, mut open) = (site.unanswered("killed"), site.begun("/chatter", "killed").await?);
        open.read(1 << 20).await?;
        scene.came("killed").await?;
        site.agent.kill().await?;
        told(pending, &["was lost"]).await?;
        cut(open).await?;
        scene.freed("killed").await?;
        // A call that comes now waits for a moment, and is told who is away.
        let early =
            tokio::time::timeout(RECOVERY, site.gateway.get("/version")).await.context("it hangs")??;
        ensure!(early.status == 503 && early.body.to_string().contains("is not connected"), "{early:?}");
        site.agent.start()?;
        scene.back(&site, before).await
    });
}

#[test]
fn a_controller_killed_in_mid_call_leaves_nothing_at_the_agent() {
    story(async {
        let mut scene = Scene::open(CROWDED).await?;
        let site = scene.site("orphaned").await?;
        let before = scene.epoch(&site).await?;
        let files = site.agent.process()?.files()?;
        let pending: Vec<_> = (0..8).map(|_| site.unanswered("orphaned")).collect();
        let open = try_join_all((0..8).map(|_| site.begun("/chatter", "orphaned"))).await?;
        scene.came("orphaned").await?;
        scene.stage.controller.kill().await?;
        for call in pending {
            let ended = tokio::time::timeout(PROMPT, call).await.context("a call hangs")??;
            ensure!(ended.is_err(), "answered by nobody: {ended:?}");
        }
        for open in open {
            cut(open).await?;
        }
        scene.freed("orphaned").await?;
        scene.stage.controller.resume().await?;
        scene.back(&site, before).await?;
        let after = site.agent.process()?.files()?;
        ensure!(after <= files + 8, "descriptors of the agent went from {files} to {after}");
        Ok(())
    });
}

/// A laptop that is closed and opened again.
#[test]
fn an_agent_that_sleeps_goes_on_or_comes_back() {
    story(async {
        let scene = shared().await?;
        let mut site = scene.site("asleep").await?;
        let before = scene.epoch(&site).await?;
        // A nap: what is asked meanwhile is answered afterwards, and nothing was lost.
        let mut watch = site.begun("/watch", "asleep").await?;
        watch.read(1).await?;
        site.agent.signal(Signal::Stop)?;
        let asked = site.gateway.clone();
        let asked = tokio::spawn(async move { asked.send(Method::GET, "/version", &[], None).await });
        tokio::task::yield_now().await;
        site.agent.signal(Signal::Cont)?;
        tokio::time::timeout(PROMPT, asked).await.context("after a nap")???.ok()?;
        watch.read(100).await?;
        ensure!(scene.epoch(&site).await? == before, "a nap cost the connection");
        // The night: its calls are told, and it is back in the morning.
        let pending = site.unanswered("asleep");
        scene.came("asleep").await?;
        site.agent.signal(Signal::Stop)?;
        told(pending, &["was lost"]).await?;
        cut(watch).await?;
        scene.gone(&site).await?;
        site.agent.signal(Signal::Cont)?;
        scene.back(&site, before).await?;
        scene.freed("asleep").await
    });
}

/// One caller that never stops; how much it carried, or the first thing that failed.
async fn busy(site: &Site, done: &tokio::sync::watch::Receiver<bool>) -> anyhow::Result<usize> {
    let mut calls = 0;
    while !*done.borrow() {
        let mut bulk = site.begun("/bulk?n=2097152", "busy").await?;
        let length = bulk.rest().await?;
        ensure!(length == 2 << 20, "{length} bytes of a transfer");
        site.works().await?;
        calls += 2;
    }
    Ok(calls)
}

#[test]
fn certificates_are_renewed_under_load_and_no_call_fails() {
    story(async {
        let settings = format!("{CROWDED}[agents]\ncertificate_seconds = 15\n");
        let scene = Scene::open(&settings).await?;
        let site = scene.site("renewed").await?;
        let before = scene.epoch(&site).await?;
        let (done, watch) = tokio::sync::watch::channel(false);
        let renewals = async {
            // Each certificate comes with a connection of its own.
            let third = scene.back(&site, before + 1).await;
            done.send_replace(true);
            third
        };
        let calls = try_join_all((0..4).map(|_| busy(&site, &watch)));
        let (renewed, calls) =
            tokio::time::timeout(Duration::from_secs(240), async { tokio::join!(renewals, calls) })
                .await
                .context("a call hangs")?;
        let log = site.agent.log();
        let calls = calls.with_context(|| format!("during a renewal; the agent's log:\n{log}"))?;
        renewed?;
        ensure!(calls.iter().all(|calls| *calls > 4), "hardly any load: {calls:?}");
        Ok(())
    });
}
