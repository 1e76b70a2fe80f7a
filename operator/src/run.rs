//! Wiring: client, listener, leadership, controllers, and the end of them all.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{BoxFuture, join_all, select_all};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::reconcile::World;
use crate::{backup, backup_schedule, backup_target, data_plane, data_service, database, ops, restore};

/// Time in which reconciles under way may end once the process is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Runs until a signal, or until leadership is lost.
///
/// # Errors
/// When the cluster cannot be reached, the port is taken, or the Lease was lost.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let plane = config.data_plane.as_deref().map(data_plane::read).transpose()?;
    let client = client(&config).await.context("no way to the API server")?;
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind(config.listen).await.context("cannot listen")?;
    let answering = tokio::spawn(ops::serve(listener, metrics.clone(), stop.clone()));
    let stopping = tokio::spawn(until_signal(stop.clone()));

    let leader = Leader::new(client.clone(), &config);
    let world = World::new(client, metrics, &config, plane);
    let http = database::http().context("no client for the instances")?;
    let ended = lead(&leader, &world, &http, &stop).await;
    stop.cancel();
    leader.resign().await;
    answering.await.context("the listener ended badly")??;
    stopping.await.context("the wait for signals ended badly")??;
    ended
}

/// Waits for leadership, then works until `stop`.
async fn lead(
    leader: &Leader,
    world: &World,
    http: &reqwest::Client,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(Ok(())) = stop.run_until_cancelled(leader.acquire()).await else { return Ok(()) };
    world.metrics().leading(true);
    let done = CancellationToken::new();
    let mut work = tokio::spawn(controllers(world.clone(), http.clone(), done.clone()));
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        lost = leader.keep() => Err(lost.into()),
        result = &mut work => {
            result.context("a controller broke off")?;
            anyhow::bail!("a controller ended by itself");
        }
    };
    done.cancel();
    // After a lost Lease somebody else may be at work already: nothing is finished then.
    if ended.is_ok() && tokio::time::timeout(GRACE, &mut work).await.is_err() {
        tracing::warn!("reconciles under way were cut off");
    }
    work.abort();
    ended
}

/// Until `stop`, or until one of them ends, which none should.
async fn controllers(world: World, http: reqwest::Client, stop: CancellationToken) {
    let all: Vec<BoxFuture<'static, ()>> = vec![
        Box::pin(data_plane::run(world.clone(), stop.clone())),
        Box::pin(data_service::run(world.clone(), stop.clone())),
        Box::pin(database::run(world.clone(), http, stop.clone())),
        Box::pin(backup_target::run(world.clone(), stop.clone())),
        Box::pin(backup::run(world.clone(), stop.clone())),
        Box::pin(backup_schedule::run(world.clone(), stop.clone())),
        Box::pin(restore::run(world, stop.clone())),
    ];
    let (_, _, others) = select_all(all).await;
    if stop.is_cancelled() {
        join_all(others).await;
    }
}

async fn client(config: &Config) -> anyhow::Result<kube::Client> {
    let mut settings = match &config.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster()?,
    };
    settings.connect_timeout = Some(Duration::from_secs(10));
    // A watch is renewed by the API server before this; anything else that is silent so long is dead.
    settings.read_timeout = Some(Duration::from_secs(330));
    Ok(kube::Client::try_from(settings)?)
}

async fn until_signal(stop: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to stop"),
        _ = interrupt.recv() => tracing::info!("interrupted"),
        () = stop.cancelled() => {}
    }
    stop.cancel();
    Ok(())
}
