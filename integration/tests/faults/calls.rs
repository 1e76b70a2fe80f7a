//! What calls can do to each other, and what is left of those that ended early.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use culvert_integration::faults::{FaultProxy, Faults};
use culvert_integration::gateway::Upload;
use culvert_integration::process::Child;
use culvert_integration::usage::Usage;
use culvert_integration::wait;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::scene::{CROWDED, Scene, Site, shared, story};

/// The window of one stream of the tunnel, bytes.
const WINDOW: usize = 1 << 20;

/// Aborted transfers, of which half go up. Many more than anything here keeps in reserve.
const ABORTED: usize = 200;

/// Descriptors that may come and go: connections kept for reuse.
const SPARE_FILES: usize = 24;

/// Memory that an allocator may keep for next time, bytes.
const SPARE_MEMORY: u64 = 48 << 20;

/// Somebody pauses `kubectl logs -f` of a pod that never stops talking.
#[test]
fn a_reader_that_stalls_stops_nobody_and_goes_on_where_it_was() {
    story(async {
        let scene = shared().await?;
        let site = scene.site("paused").await?;
        let before = scene.epoch(&site).await?;
        let mut paused = site.begun("/chatter", "paused").await?;
        let full = stopped(scene, "paused").await?;
        ensure!(full > WINDOW, "only {full} bytes were under way: no window is full");
        let calls = stream::iter(0..200).map(|_| site.works()).buffer_unordered(8);
        calls.try_collect::<()>().await.context("beside a paused reader")?;
        let mut bulk = site.begun("/bulk?n=8388608", "beside").await?;
        ensure!(bulk.rest().await? == 8 << 20);
        let said = paused.take(full * 2).await?;
        ensure!(said.len() >= full * 2, "ended after {} bytes", said.len());
        in_order(&said)?;
        ensure!(scene.epoch(&site).await? == before, "the connection was lost");
        drop(paused);
        scene.freed("paused").await
    });
}

/// No line is missing, and none came twice.
fn in_order(said: &[u8]) -> anyhow::Result<()> {
    let whole = said.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    for (number, line) in whole.enumerate() {
        let line: serde_json::Value = serde_json::from_slice(line)?;
        ensure!(line["line"] == number, "{line} came as line {number}");
    }
    Ok(())
}

/// Waits until what is under way with this mark makes no progress; gives its bytes.
async fn stopped(scene: &Scene, mark: &str) -> anyhow::Result<usize> {
    let mut last = 0;
    let mut same = 0;
    wait::until(Duration::from_secs(60), || {
        let now = scene.origin.bytes(mark);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        let still = same > 20;
        async move {
            ensure!(still, "still moving after {now} bytes");
            Ok(now)
        }
    })
    .await
}

#[test]
fn many_slow_watches_leave_a_quick_call_quick() {
    story(async {
        let scene = shared().await?;
        let site = scene.site("watched").await?;
        let open = stream::iter(0..300).map(|_| site.begun("/watch", "watched")).buffer_unordered(16);
        let mut watches: Vec<_> = open.try_collect().await?;
        ensure!(scene.origin.open("watched") == 300, "{}", scene.origin.open("watched"));
        for _ in 0..20 {
            site.works().await.context("beside 300 watches")?;
        }
        try_join_all(watches.iter_mut().map(|watch| watch.read(100))).await.context("the watches")?;
        drop(watches);
        scene.freed("watched").await
    });
}

#[test]
fn a_target_that_takes_no_dial_is_named_and_harms_nobody() {
    story(async {
        let scene = shared().await?;
        let wall = FaultProxy::start(scene.origin.address()).await?;
        let kubeconfig = scene.origin.kubeconfig_to(wall.address())?;
        let line = FaultProxy::start(scene.stage.controller.address()).await?;
        let reach = |agent: culvert_integration::agent::Agent| agent.reaching(&kubeconfig);
        let site = scene.site_by("walled", line, reach).await?;
        wall.set(Faults { dead_end: true, ..Faults::default() });
        wall.reset();
        let hanging = try_join_all((0..8).map(|_| site.gateway.get("/late?n=1")));
        let answers =
            tokio::time::timeout(Duration::from_secs(60), hanging).await.context("a dial hangs")??;
        for answer in answers {
            let named = answer.body.to_string().contains("timed out");
            ensure!(answer.status.is_server_error() && named, "{answer:?}");
        }
        wall.set(Faults::default());
        site.works().await
    });
}

#[test]
fn a_call_that_is_given_up_is_given_up_everywhere() {
    story(async {
        let scene = shared().await?;
        let site = scene.site("fickle").await?;
        // Before the answer.
        let waiting = site.unanswered("before");
        scene.came("before").await?;
        waiting.abort();
        // While it comes, and while it is not read.
        let mut read = site.begun("/chatter", "during").await?;
        read.read(4 * WINDOW).await?;
        let unread = site.begun("/chatter", "unread").await?;
        stopped(scene, "unread").await?;
        drop((read, unread));
        // After it.
        let mut whole = site.begun("/bulk?n=100000", "after").await?;
        ensure!(whole.rest().await? == 100_000);
        drop(whole);
        for mark in ["before", "during", "unread", "after"] {
            scene.freed(mark).await?;
        }
        site.works().await
    });
}

/// A body that goes on for ever, or breaks off after `length` bytes.
fn upload(length: Option<usize>) -> Upload {
    const PIECE: usize = 64 * 1024;
    let pieces = stream::unfold(0, move |sent| async move {
        match length {
            Some(length) if sent >= length => Some((Err(std::io::Error::other("broken off")), sent)),
            _ => Some((Ok(Frame::data(Bytes::from_static(&[b'u'; PIECE]))), sent + PIECE)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// One transfer, up or down, that ends in the middle.
async fn aborted(site: &Site, number: usize) -> anyhow::Result<()> {
    if number.is_multiple_of(2) {
        let mut bulk = site.begun("/bulk?n=1073741824", "aborted").await?;
        bulk.read(WINDOW).await.map(drop)
    } else {
        let body = upload(Some(2 * WINDOW));
        let sent = site.gateway.exchange(Method::POST, "/sink?mark=aborted", &[], body).await;
        ensure!(
            !sent.is_ok_and(|sent| sent.answer.status() == StatusCode::OK),
            "half an upload was taken for a whole"
        );
        Ok(())
    }
}

/// What the two programs hold.
async fn held(scene: &Scene, site: &Site) -> anyhow::Result<[(usize, u64); 2]> {
    let (controller, agent) = (scene.stage.controller.process()?, site.agent.process()?);
    let held = |of: &Child| anyhow::Ok((of.files()?, Usage::of([of.pid()])?.memory));
    Ok([held(controller)?, held(agent)?])
}

#[test]
fn transfers_aborted_in_the_middle_leave_nothing_behind() {
    story(async {
        let scene = Scene::open(CROWDED).await?;
        let site = scene.site("copied").await?;
        let round = || stream::iter(0..ABORTED).map(|number| aborted(&site, number)).buffer_unordered(4);
        // The first rounds fill caches and pools.
        round().take(ABORTED / 4).try_collect::<()>().await?;
        scene.freed("aborted").await?;
        let before = held(&scene, &site).await?;
        round().try_collect::<()>().await?;
        scene.freed("aborted").await?;
        wait::until(Duration::from_secs(30), || async {
            let after = held(&scene, &site).await?;
            for (before, after) in before.iter().zip(&after) {
                let flat = after.0 <= before.0 + SPARE_FILES && after.1 <= before.1 + SPARE_MEMORY;
                ensure!(flat, "descriptors and bytes went from {before:?} to {after:?}");
            }
            Ok(())
        })
        .await?;
        site.works().await
    });
}
