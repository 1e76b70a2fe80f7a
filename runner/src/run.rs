//! The life of an instance: wires all tasks together, and ends them in order.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Folders, ProbeKind, RunArgs};
use crate::board::Board;
use crate::clock::Clock;
use crate::drivers::driver as driver_of;
use crate::engine::Engine;
use crate::filling::{self, Filling};
use crate::lease::fence::Fence;
use crate::lease::keeper::{Intent, Keeper, Standing};
use crate::member::{self, Given};
use crate::peers::Peers;
use crate::wish::{self, Wish};
use crate::{files, http, label};

/// How long the mounts may take to appear, so that a Secret that is made a moment later needs no restart.
const MOUNTS: Duration = Duration::from_secs(60);

/// Runs the instance until it is asked to end; the exit code.
///
/// # Errors
/// What keeps it from beginning, for a person.
pub async fn run(args: RunArgs) -> Result<u8> {
    let (stop, folders) = (stop_on_signals()?, Arc::new(args.folders.clone()));
    files::private_folder(&folders.run)
        .with_context(|| format!("use {} (an emptyDir in memory belongs there)", folders.run.display()))?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let wish = Arc::new(first_wish(&folders, &stop).await?);
    let driver = &wish.config.driver;
    let engine = driver_of(driver).with_context(|| format!("there is no driver `{driver}`"))?;
    let client = client(&args).await?;
    let mut tasks = JoinSet::new();
    let given = begin(&mut tasks, &args, client, (wish, engine.clone()), stop)?;
    // Both are of use until the engine has ended, which begins when the member is asked to.
    tasks.spawn(attend(engine.clone(), folders, CancellationToken::new()));
    tasks.spawn(serve(listener, given.board.clone(), engine, CancellationToken::new()));
    let fence = given.fence.clone();
    member::run(given).await;
    fence.close();
    // The rest has nothing to put in order.
    tasks.shutdown().await;
    Ok(0)
}

/// Begins the tasks beside the member, and gives it their ends.
fn begin(
    tasks: &mut JoinSet<()>,
    args: &RunArgs,
    client: kube::Client,
    (first, engine): (Arc<Wish>, Arc<dyn Engine>),
    stop: CancellationToken,
) -> Result<Given> {
    let (config, folders) = (first.config.clone(), Arc::new(args.folders.clone()));
    let (clock, fence) = (Clock::start(), Fence::start().context("start the fence")?);
    let (wish, wish_seen) = watch::channel(first);
    let (wish_problem, wish_problem_seen) = watch::channel(None);
    let (standing, standing_seen) = watch::channel(Standing::default());
    let intent = Intent { lease_seconds: config.lease_seconds, ..Intent::default() };
    let (intent, intent_seen) = watch::channel(intent);
    let (label, label_seen) = watch::channel(None);
    let filling = Filling::default();
    let pod = (args.pod_name.as_str(), args.pod_uid.as_str());
    let keeper = Keeper::new(client.clone(), &config.namespace, &config.database, pod, clock, fence.clone());
    tasks.spawn(keeper.run(intent_seen, standing));
    tasks.spawn(wish::watch(folders.clone(), wish, wish_problem));
    if let Some(source) = &config.source {
        let (namespace, restore) = (config.namespace.clone(), source.restore.clone());
        tasks.spawn(filling::tell(client.clone(), namespace, restore, filling.clone(), stop.clone()));
    }
    tasks.spawn(label::keep(client, config.namespace.clone(), args.pod_name.clone(), label_seen));
    Ok(Given {
        engine,
        folders,
        pod: args.pod_name.clone(),
        clock,
        fence,
        peers: Peers::new(&args.peers)?,
        wish: wish_seen,
        wish_problem: wish_problem_seen,
        standing: standing_seen,
        intent,
        filling,
        board: Board::new(clock),
        label,
        stop,
    })
}

async fn serve(listener: TcpListener, board: Board, engine: Arc<dyn Engine>, stop: CancellationToken) {
    if let Err(error) = http::serve(listener, board, engine, stop).await {
        tracing::error!(%error, "the runner's HTTP has ended");
    }
}

/// Keeps what the engine needs beside it.
async fn attend(engine: Arc<dyn Engine>, folders: Arc<Folders>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = engine.attend(&folders, stop.clone()).await {
            tracing::warn!(%error, "what the engine needs beside it has ended, and is begun again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn stop_on_signals() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        asked.cancel();
    });
    Ok(stop)
}

/// Waits for the mounts for a while.
async fn first_wish(folders: &Folders, stop: &CancellationToken) -> Result<Wish> {
    let began = std::time::Instant::now();
    loop {
        match wish::read(folders) {
            Ok(wish) => return Ok(wish),
            Err(error) if began.elapsed() > MOUNTS || stop.is_cancelled() => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "waiting for the mounts"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn client(args: &RunArgs) -> Result<kube::Client> {
    let config = match &args.kubeconfig {
        None => kube::Config::incluster().context("read the pod's ServiceAccount")?,
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
    };
    kube::Client::try_from(config).context("make a client of the API server")
}

/// Asks the runner of this pod; 0 when all is well.
///
/// # Errors
/// When it does not answer.
pub async fn probe(what: ProbeKind, port: u16) -> Result<u8> {
    let path = match what {
        ProbeKind::Live => "livez",
        ProbeKind::Ready => "readyz",
    };
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(5)).build()?;
    let answer = client.get(format!("http://127.0.0.1:{port}/{path}")).send().await?;
    Ok(u8::from(!answer.status().is_success()))
}
