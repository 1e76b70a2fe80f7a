//! Many agents in one process against one controller: memory, idle load, and a storm of returns.
//!
//! The controller is the real program on its default database. The agents have real identities,
//! each enrolled with a join token of its own, and speak the real protocol over TLS of their own;
//! only the cluster behind them is missing. They dial from many addresses of loopback, since a
//! controller bounds what one address may have open.
//!
//! `CULVERT_BENCH_AGENTS` says how many (2000), `CULVERT_BENCH_IDLE` for how many seconds they
//! are watched (60). Nothing here asserts a time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is for")]

mod fleet;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use culvert_integration::figures::{machine, short, table};
use culvert_integration::hand::{Hand, Held};
use culvert_integration::stage::Stage;
use culvert_integration::usage::Usage;
use culvert_pki::token::JoinToken;
use fleet::{Fleet, Tally};
use futures::{StreamExt, TryStreamExt};

/// Enrolments that run at once.
const AT_ONCE: usize = 8;
/// Everybody must be connected within this.
const PATIENCE: Duration = Duration::from_secs(300);

/// As the agent has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (count, idle) = (setting("CULVERT_BENCH_AGENTS", 2000)?, setting("CULVERT_BENCH_IDLE", 60)?);
    let limits = format!("[limits]\nconnections = {}\nconnections_per_address = 1000\n", count * 2 + 1000);
    let mut stage = Stage::open_with(&limits).await?;
    println!("## {count} agents on one controller\n\n{}\n", machine());
    let began = Instant::now();
    let identities = enrol(&stage, count as usize).await?;
    let enrolled = began.elapsed();
    let mut rows = vec![row("enrolments a second", count as f64 / enrolled.as_secs_f64())];

    let before = [stage.controller.usage()?, Usage::of([std::process::id()])?];
    let fleet = Fleet::start(stage.controller.address(), identities)?;
    let first = all_there(&fleet, 0, count).await?;
    rows.push(row("all connected after, s", first.as_secs_f64()));
    rows.extend(watch(&stage, &fleet, before, count, Duration::from_secs(idle)).await?);

    let welcomed = fleet.tally().welcomed;
    let began = Instant::now();
    stage.controller.kill().await?;
    stage.controller.launch()?;
    let pace = tokio::spawn(accepts_per_second(fleet.counter()));
    all_there(&fleet, welcomed, count).await?;
    rows.push(row("all back after kill -9, s", began.elapsed().as_secs_f64()));
    pace.abort();
    println!("{}", table(&["what", "measured"], &rows));
    Ok(())
}

fn row(what: &str, value: f64) -> Vec<String> {
    vec![what.to_owned(), short(value)]
}

/// A cluster and an enrolment for each.
async fn enrol(stage: &Stage, count: usize) -> anyhow::Result<Vec<Held>> {
    let hand = Hand::new(&stage.controller)?;
    let one = |at: usize| {
        let hand = hand.clone().from_address(fleet::address(at).into());
        async move {
            let cluster = stage.admin.cluster_create(&format!("bench-{at}")).await?;
            let token = stage.admin.join_token(&cluster).await?;
            hand.enrol(&JoinToken::parse(&token)?).await
        }
    };
    futures::stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Waits until this many sessions began after the first `since`, and all are there.
async fn all_there(fleet: &Fleet, since: u64, count: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let Tally { welcomed, live, .. } = fleet.tally();
        if welcomed >= since + count && live == count {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{live} of {count} agents are connected, {welcomed} sessions began"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What both sides use while nothing is asked of them.
async fn watch(
    stage: &Stage,
    fleet: &Fleet,
    before: [Usage; 2],
    count: u64,
    idle: Duration,
) -> anyhow::Result<Vec<Vec<String>>> {
    // What connecting needed is given back first.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (begin, beats) = (stage.controller.usage()?, fleet.tally().beats);
    tokio::time::sleep(idle).await;
    let (end, agents) = (stage.controller.usage()?, Usage::of([std::process::id()])?);
    let beats = fleet.tally().beats - beats;
    let kib =
        |now: Usage, before: Usage| now.memory.saturating_sub(before.memory) as f64 / 1024.0 / count as f64;
    let [controller_before, agents_before] = before;
    Ok(vec![
        row("controller's memory of an idle agent, KiB", kib(end, controller_before)),
        row("agent's memory of its connection, KiB", kib(agents, agents_before)),
        row(
            "controller's share of one core, idle, %",
            (end.cpu - begin.cpu).as_secs_f64() / idle.as_secs_f64() * 100.0,
        ),
        row("heartbeats a second", beats as f64 / idle.as_secs_f64()),
        row(
            "bytes written to disk for a heartbeat",
            (end.written - begin.written) as f64 / beats.max(1) as f64,
        ),
    ])
}

/// Prints how many sessions began in each second.
async fn accepts_per_second(counter: fleet::Counter) {
    let mut last = counter.welcomed();
    let mut seconds = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = counter.welcomed();
        seconds.push(now - last);
        last = now;
        eprintln!("sessions begun in second {}: {}", seconds.len(), seconds.last().unwrap_or(&0));
    }
}

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}
