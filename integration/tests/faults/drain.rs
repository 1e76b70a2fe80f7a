//! A controller that is told to stop under load loses no call that can end in time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use culvert_integration::faults::{Faults, Flow};
use culvert_integration::gateway::{no_body, whole};
use culvert_integration::process::Signal;
use futures::future::try_join_all;
use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{CROWDED, Scene, Site, cut, marked, story};

/// Time that the controller gives to what runs, seconds.
const GRACE: u64 = 12;

/// Callers that ask one thing after another, each on a connection of its own.
const CALLERS: usize = 8;

/// What a small call came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The doors were closed, and nothing of the call came to the cluster.
    NotTaken,
}

/// A small call, which must be answered if anything of it was carried out.
async fn small(scene: &Scene, site: &Site, mark: &str) -> anyhow::Result<Outcome> {
    let called = site.gateway.exchange(Method::GET, &marked("/late?n=5", mark), &[], no_body()).await;
    let answered = match called {
        Ok(mut called) => {
            let status = called.answer.status();
            ensure!(status == StatusCode::OK, "{mark} was answered with {status}");
            called.rest().await
        }
        Err(error) => Err(error),
    };
    match answered {
        Ok(_) => Ok(Outcome::Answered),
        Err(error) => {
            ensure!(scene.origin.came(mark) == 0, "{mark} was carried out and not answered: {error:#}");
            Ok(Outcome::NotTaken)
        }
    }
}

/// Calls until the doors are closed; counts what was answered.
async fn caller(scene: &Scene, site: &Site, name: usize, answered: &AtomicUsize) -> anyhow::Result<()> {
    for number in 0.. {
        if small(scene, site, &format!("small-{name}-{number}")).await? == Outcome::NotTaken {
            break;
        }
        answered.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Says something every now and then on an upgraded connection, hears it back, and ends
/// half a second after the controller was told to stop.
async fn shell(site: &Site, told: &AtomicBool) -> anyhow::Result<()> {
    let headers = [("connection", "upgrade"), ("upgrade", "echo")];
    let mut begun = site.gateway.exchange(Method::GET, "/echo", &headers, no_body()).await?;
    ensure!(begun.answer.status() == StatusCode::SWITCHING_PROTOCOLS, "{}", begun.answer.status());
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut begun.answer).await?);
    let mut after = 0;
    while after < 10 {
        stream.write_all(b"echo?").await?;
        let mut heard = [0; 5];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await;
        read.context("no echo")??;
        ensure!(&heard == b"echo?");
        tokio::time::sleep(Duration::from_millis(50)).await;
        after += usize::from(told.load(Ordering::SeqCst));
    }
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.context("the end of a shell")?;
    ensure!(rest.is_empty(), "{rest:?}");
    Ok(())
}

/// The calls that take longer than it takes to stop.
async fn long(site: &Site, told: &AtomicBool) -> anyhow::Result<()> {
    let mut down = site.begun("/bulk?n=33554432", "down").await?;
    let downloaded = async { down.rest().await.context("a download") };
    let body = whole(Bytes::from(vec![7; 32 << 20]));
    let uploaded = async {
        let sent = site.gateway.exchange(Method::POST, "/sink?mark=up", &[], body).await;
        let mut sent = sent.context("an upload")?;
        ensure!(sent.answer.status() == StatusCode::OK, "an upload: {}", sent.answer.status());
        sent.rest().await.context("an upload's answer")
    };
    let late = try_join_all((0..20).map(|_| async {
        let answer = site.gateway.get("/late?n=4000").await.context("a late answer")?;
        answer.ok().context("a late answer").map(drop)
    }));
    let (downloaded, _, _, ()) = tokio::try_join!(downloaded, uploaded, late, shell(site, told))?;
    ensure!(downloaded == 32 << 20, "{downloaded} bytes of a download");
    Ok(())
}

#[test]
fn a_controller_that_stops_under_load_loses_no_call_that_can_end() {
    story(async {
        let settings = format!("{CROWDED}[shutdown]\ngrace_seconds = {GRACE}\n");
        let mut scene = Scene::open(&settings).await?;
        let site = scene.site("drained").await?;
        let before = scene.epoch(&site).await?;
        // So that transfers take some seconds.
        let narrow = Flow { bytes_per_second: Some(10 << 20), ..Flow::default() };
        site.line.set(Faults { up: narrow.clone(), down: narrow, ..Faults::default() });
        let (answered, told) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut endless = site.begun("/watch", "endless").await?;
        endless.read(1).await?;

        let term = Command::of(&scene)?;
        let stopping = async {
            let (all, bulk) = (&scene, &scene.origin);
            culvert_integration::wait::until(Duration::from_secs(60), || async {
                let load = (answered.load(Ordering::SeqCst), bulk.bytes("down"), bulk.bytes("up"));
                ensure!(load.0 > 50 && load.1 > 1 << 20 && load.2 > 1 << 20, "no load yet: {load:?}");
                all.epoch(&site).await
            })
            .await?;
            term.send().await?;
            told.store(true, Ordering::SeqCst);
            endless.read(1).await.context("an endless answer gets the grace time, too")
        };
        let callers = try_join_all((0..CALLERS).map(|name| caller(&scene, &site, name, &answered)));
        let all = async { tokio::try_join!(stopping, long(&site, &told), callers) };
        let all = tokio::time::timeout(Duration::from_secs(90), all).await.context("a call hangs")?;
        all.with_context(|| format!("the controller's log:\n{}", scene.stage.controller.log()))?;
        cut(endless).await?;
        let status = scene.stage.controller.ended().await?;
        ensure!(status.success(), "{status}: {}", scene.stage.controller.log());
        scene.stage.controller.resume().await?;
        scene.back(&site, before).await
    });
}

/// The order to stop, which can be given while others use the scene.
struct Command(u32);

impl Command {
    fn of(scene: &Scene) -> anyhow::Result<Self> {
        Ok(Self(scene.stage.controller.process()?.pid()))
    }

    async fn send(&self) -> anyhow::Result<()> {
        let mut kill = tokio::process::Command::new("kill");
        let done = kill.arg(format!("-{}", Signal::Term.name())).arg(self.0.to_string()).status().await?;
        ensure!(done.success(), "kill: {done}");
        Ok(())
    }
}
