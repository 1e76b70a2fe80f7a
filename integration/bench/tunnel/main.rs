//! Culvert's tunnel beside others: same origin, same client, same machine, in turns; prints Markdown.
//!
//! Each contender runs as processes of its own, fresh in every round, and carries TCP
//! connections over one encrypted hop on loopback. This program is the load; it starts itself
//! again in other roles (`role NAME ...`) for the origin, the relays and Culvert's two ends.
//!
//! `CULVERT_BENCH_ROUNDS` (3), `CULVERT_BENCH_SCALE` (1: about ten minutes in all),
//! `CULVERT_BENCH_ONLY` (names of contenders, with commas; without it all) and
//! `CULVERT_BENCH_PEERS` (the folder that `bench/peers/build` printed; without it others are
//! left out). Nothing here asserts a time.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report is what it is for")]

mod awake;
mod certificates;
mod client;
mod contender;
mod library;
mod origin;
mod peers;
mod relay;
mod report;
mod workloads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use contender::{Contender, Ground, Program};
use culvert_integration::process::{accepts, free_address};
use report::Report;
use workloads::Scale;

/// As the product's programs have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((first, rest)) if first == "role" => play(rest).await,
        _ => measure().await,
    }
}

/// One of the processes of a run.
async fn play(words: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let at = |text: &str| text.parse::<SocketAddr>().context("an address");
    match words.as_slice() {
        ["origin", listen] => origin::run(at(listen)?).await,
        ["near", folder, users, far] => relay::near(Path::new(folder), at(users)?, at(far)?).await,
        ["far", folder, listen, origin] => relay::far(Path::new(folder), at(listen)?, at(origin)?).await,
        ["hub", folder, users, agents] => library::hub(Path::new(folder), at(users)?, at(agents)?).await,
        ["link", folder, hub, origin] => library::link(Path::new(folder), at(hub)?, at(origin)?).await,
        ["spin"] => awake::spin(),
        other => bail!("no role is {other:?}"),
    }
}

async fn measure() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    certificates::write(folder.path())?;
    let origin = free_address("127.0.0.1")?;
    let mut program = Program::role("origin", [origin.to_string()])?;
    program.start(&folder.path().join("log"))?;
    accepts(origin, std::time::Duration::from_secs(5)).await?;
    let ground = Ground {
        folder: folder.path().to_owned(),
        origin,
        peers: std::env::var_os("CULVERT_BENCH_PEERS").map(PathBuf::from),
    };
    let (contenders, rounds, scale) =
        (chosen(&ground)?, setting("CULVERT_BENCH_ROUNDS", 3)?, Scale(setting("CULVERT_BENCH_SCALE", 1.0)?));
    let mut report = Report::new(contenders.clone());
    for round in 1..=rounds {
        for contender in &contenders {
            eprintln!("round {round} of {rounds}: {}", contender.name());
            let mut running = contender.start(&ground).await.context(contender.name())?;
            report.note(*contender, workloads::all(&mut running, scale).await);
        }
    }
    report.print(rounds);
    Ok(())
}

/// Those asked for; without the programs of others, ours and the reference.
fn chosen(ground: &Ground) -> anyhow::Result<Vec<Contender>> {
    let only = std::env::var("CULVERT_BENCH_ONLY").unwrap_or_default();
    let asked = |contender: &Contender| {
        only.is_empty() || only.split(',').any(|name| contender.name().starts_with(name))
    };
    let there = |contender: &Contender| contender.is_ours() || ground.peers.is_some();
    Ok(Contender::ALL.into_iter().filter(asked).filter(there).collect())
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| anyhow::anyhow!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}
