//! What is done with each contender: W1 to W7 of the design, each one figure or more.

use std::time::{Duration, Instant};

use anyhow::Context;
use culvert_integration::figures::Sample;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::awake::Awake;
use crate::client::{Client, Way};
use crate::contender::Running;

/// Connections of the workloads that use many.
const MANY: usize = 64;
/// Streams that idle in W6.
const IDLE: usize = 1000;
/// How often W5 asks.
const PROBE: Duration = Duration::from_millis(2);
/// What the reader of W5 takes before it stops.
const TAKEN: u64 = 1 << 20;
/// Longest that a contender may take to work again.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much is done: 1 is a run of about ten minutes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale(pub(crate) f64);

impl Scale {
    fn count(self, count: usize) -> usize {
        ((count as f64 * self.0) as usize).max(100)
    }

    fn time(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds * self.0).max(0.5))
    }

    fn bytes(self, bytes: u64) -> u64 {
        ((bytes as f64 * self.0) as u64).max(32 << 20)
    }
}

/// A figure, its unit, and whether less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Figure {
    Latency,
    Rate,
    CpuPerRequest,
    NewStreams,
    NewStreamsAtOnce,
    Download,
    Upload,
    BesideBulk,
    BesideStalled,
    IdleStream,
    Back,
}

impl Figure {
    pub(crate) const ALL: [Self; 11] = [
        Self::Latency,
        Self::Rate,
        Self::CpuPerRequest,
        Self::NewStreams,
        Self::NewStreamsAtOnce,
        Self::Download,
        Self::Upload,
        Self::BesideBulk,
        Self::BesideStalled,
        Self::IdleStream,
        Self::Back,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "W1 p50 of sequential requests, µs ↓",
            Self::Rate => "W2 requests/s, 64 connections",
            Self::CpuPerRequest => "W2 CPU of a request, µs ↓",
            Self::NewStreams => "W3 connect, request, close: a second, in turn",
            Self::NewStreamsAtOnce => "W3 the same, 64 at once",
            Self::Download => "W4 download, one stream, MiB/s",
            Self::Upload => "W4 upload, one stream, MiB/s",
            Self::BesideBulk => "W5 p50 beside a full-speed download, µs ↓",
            Self::BesideStalled => "W5 p50 beside a stalled reader, µs ↓",
            Self::IdleStream => "W6 memory of an idle stream, both ends, KiB ↓",
            Self::Back => "W7 works again after kill -9 of the server, s ↓",
        }
    }
}

/// Everything of one round of one contender; what fails is said and left out.
pub(crate) async fn all(running: &mut Running, scale: Scale) -> Vec<(Figure, f64)> {
    let mut figures = Vec::new();
    let mut note = |what: &str, result: anyhow::Result<Vec<(Figure, f64)>>| match result {
        Ok(values) => figures.extend(values),
        Err(error) => eprintln!("  {what}: {error:#}"),
    };
    note("W6", idle(running).await);
    note("W1", sequential(&running.way, scale).await);
    note("W2", many(running, scale).await);
    note("W3", new_streams(&running.way, scale).await);
    note("W4", bulk(&running.way, scale).await);
    note("W5", beside(&running.way, scale).await);
    note("W7", restart(running).await);
    figures
}

async fn sequential(way: &Way, scale: Scale) -> anyhow::Result<Vec<(Figure, f64)>> {
    let _awake = Awake::start()?;
    let mut client = Client::connect(way).await?;
    let mut times = Sample::default();
    for turn in 0..scale.count(5000) + 500 {
        let began = Instant::now();
        client.get().await?;
        if turn >= 500 {
            times.push(micros(began.elapsed()));
        }
    }
    Ok(vec![(Figure::Latency, times.median().context("nothing measured")?)])
}

async fn many(running: &Running, scale: Scale) -> anyhow::Result<Vec<(Figure, f64)>> {
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = Client::connect(&running.way).await?;
        client.get().await?;
        clients.push(client);
    }
    let before = running.usage()?;
    let began = Instant::now();
    let end = began + scale.time(2.5);
    let mut loops = JoinSet::new();
    for mut client in clients {
        loops.spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < end {
                client.get().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let count = sum(loops).await? as f64;
    let cpu = running.usage()?.cpu.saturating_sub(before.cpu);
    let rate = count / began.elapsed().as_secs_f64();
    Ok(vec![(Figure::Rate, rate), (Figure::CpuPerRequest, micros(cpu) / count)])
}

async fn new_streams(way: &Way, scale: Scale) -> anyhow::Result<Vec<(Figure, f64)>> {
    let one = fresh(way, 1, scale.time(1.5)).await?;
    let many = fresh(way, MANY, scale.time(1.5)).await?;
    Ok(vec![(Figure::NewStreams, one), (Figure::NewStreamsAtOnce, many)])
}

/// Connections that ask once and close, a second.
async fn fresh(way: &Way, at_once: usize, time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let end = began + time;
    let mut loops = JoinSet::new();
    for _ in 0..at_once {
        let way = way.clone();
        loops.spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < end {
                Client::connect(&way).await?.get().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    Ok(sum(loops).await? as f64 / began.elapsed().as_secs_f64())
}

async fn sum(mut loops: JoinSet<anyhow::Result<u64>>) -> anyhow::Result<u64> {
    let mut all = 0;
    while let Some(count) = loops.join_next().await {
        all += count??;
    }
    Ok(all)
}

async fn bulk(way: &Way, scale: Scale) -> anyhow::Result<Vec<(Figure, f64)>> {
    let bytes = scale.bytes(768 << 20);
    let speed = |began: Instant| bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64();
    Client::connect(way).await?.download(16 << 20).await?;
    let mut client = Client::connect(way).await?;
    let began = Instant::now();
    client.download(bytes).await?;
    let down = speed(began);
    let mut client = Client::connect(way).await?;
    client.upload(16 << 20).await?;
    let began = Instant::now();
    client.upload(bytes).await?;
    Ok(vec![(Figure::Download, down), (Figure::Upload, speed(began))])
}

async fn beside(way: &Way, scale: Scale) -> anyhow::Result<Vec<(Figure, f64)>> {
    let mut figures = Vec::new();
    let (stop, stopped) = watch::channel(false);
    let bulk = tokio::spawn(download_until(way.clone(), stopped));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let beside_bulk = probe(way, scale).await;
    stop.send_replace(true);
    bulk.await??;
    figures.push((Figure::BesideBulk, beside_bulk.context("beside a download")?));
    let mut stalled = Client::connect(way).await?;
    stalled.stall(1 << 30, TAKEN).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    match probe(way, scale).await {
        Ok(p50) => figures.push((Figure::BesideStalled, p50)),
        Err(error) => eprintln!("  W5 beside a stalled reader: {error:#}"),
    }
    Ok(figures)
}

async fn download_until(way: Way, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut client = Client::connect(&way).await?;
    while !*stopped.borrow() {
        client.download(32 << 20).await?;
    }
    Ok(())
}

/// The median of requests that come every two milliseconds; one that hangs fails.
async fn probe(way: &Way, scale: Scale) -> anyhow::Result<f64> {
    let asking = async {
        let mut client = Client::connect(way).await?;
        client.get().await?;
        let mut times = Sample::default();
        let end = Instant::now() + scale.time(1.5);
        let mut ticks = tokio::time::interval(PROBE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while Instant::now() < end {
            ticks.tick().await;
            let began = Instant::now();
            client.get().await?;
            times.push(micros(began.elapsed()));
        }
        times.median().context("nothing measured")
    };
    tokio::time::timeout(scale.time(1.5) + Duration::from_secs(3), asking).await.context("it hangs")?
}

async fn idle(running: &Running) -> anyhow::Result<Vec<(Figure, f64)>> {
    let before = running.usage()?.memory;
    let mut clients = Vec::new();
    for _ in 0..IDLE {
        let mut client = Client::connect(&running.way).await?;
        client.get().await?;
        clients.push(client);
    }
    // Allocators give back late what only connecting needed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let more = running.usage()?.memory.saturating_sub(before);
    Ok(vec![(Figure::IdleStream, more as f64 / 1024.0 / IDLE as f64)])
}

async fn restart(running: &mut Running) -> anyhow::Result<Vec<(Figure, f64)>> {
    let began = Instant::now();
    running.restart_server().await?;
    running.works(PATIENCE).await?;
    Ok(vec![(Figure::Back, began.elapsed().as_secs_f64())])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
