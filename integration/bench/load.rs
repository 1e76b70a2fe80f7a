//! Load on gateway and API server: many connections at once, bulk, and small requests beside bulk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use culvert_integration::figures::{Sample, cell, table};
use tokio::task::JoinSet;

use crate::latency::{Client, Target};

/// Connections that ask at once.
const MANY: usize = 64;
/// Turns of each target, and how long one thing is done in each.
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(2);
/// How often a small request comes beside a bulk one.
const PROBE: Duration = Duration::from_millis(2);

/// What is measured, in the order of the rows.
const ROWS: [&str; 3] = [
    "requests/s, 64 connections",
    "large answers, one connection, MiB/s",
    "p50 of a small request beside large ones, µs ↓",
];

/// Measures both ways in turns; a way is a target for small answers and one for large.
pub(crate) async fn compare(ways: &[(&'static str, Target, Target)]) -> anyhow::Result<String> {
    let mut samples = vec![vec![Sample::default(); ways.len()]; ROWS.len()];
    for _ in 0..ROUNDS {
        for (at, (_, small, large)) in ways.iter().enumerate() {
            let values = [many(small).await?, bulk(large).await?, beside(small, large).await?];
            for (row, value) in samples.iter_mut().zip(values) {
                row.get_mut(at).context("a way")?.push(value);
            }
        }
    }
    let head: Vec<&str> = ["what"].into_iter().chain(ways.iter().map(|(name, ..)| *name)).collect();
    let rows = ROWS.iter().zip(&samples).map(|(what, row)| {
        let reference = row.first().cloned().unwrap_or_default();
        [(*what).to_owned()].into_iter().chain(row.iter().map(|sample| cell(sample, &reference))).collect()
    });
    Ok(table(&head, &rows.collect::<Vec<_>>()))
}

async fn many(target: &Target) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(Client::connect(target).await?);
    }
    let began = Instant::now();
    let mut loops = JoinSet::new();
    for mut client in clients {
        loops.spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < TIME {
                client.get().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut all = 0.0;
    while let Some(count) = loops.join_next().await {
        all += f64::from(count??);
    }
    Ok(all / began.elapsed().as_secs_f64())
}

async fn bulk(target: &Target) -> anyhow::Result<f64> {
    let mut client = Client::connect(target).await?;
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        bytes += client.get().await?;
    }
    Ok(bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64())
}

async fn beside(small: &Target, large: &Target) -> anyhow::Result<f64> {
    let (mut small, mut large) = (Client::connect(small).await?, Client::connect(large).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let loading = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            large.get().await?;
        }
        anyhow::Ok(())
    });
    let (mut times, began) = (Sample::default(), Instant::now());
    let mut ticks = tokio::time::interval(PROBE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while began.elapsed() < TIME {
        ticks.tick().await;
        let asked = Instant::now();
        small.get().await?;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    stop.store(true, Ordering::Relaxed);
    loading.await??;
    times.median().context("nothing was measured")
}
