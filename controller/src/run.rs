//! Wires the rooms together, and takes them apart again.
//!
//! Everything that can fail at a start fails here, before the first connection is accepted:
//! sockets are bound by the caller, then the store opens, the audit file opens, the doors'
//! certificates are made. Nothing below knows of more than it is handed.
//!
//! The end: the stop token is cancelled, by the caller or by a vital task that failed. The port
//! closes, agents are told to move, watches end so that their clients come back elsewhere,
//! other streams get the grace time, the audit is flushed, and the store closes last.

mod certificates;
mod doors;
mod peers;
mod sign_in;
mod signals;
mod welcome;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use culvert_tunnel::{Hub, Limits as TunnelLimits};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::certificates::CertificatesError;
use self::certificates::DoorCertificates;
use self::doors::Doors;
pub use self::sign_in::sign_in_code;
pub use self::signals::serve;
use crate::agents::{AgentMetrics, Agents, LEAD};
use crate::app::{App, BootstrapError, Clock, Error as AppError, Opened};
use crate::config::Config;
use crate::edge::{Edge, EdgeLimits, EdgeMetrics, HttpLimits, Names};
use crate::gateway::{Books, Gateway, GatewayMetrics, LiveCalls, Spool};
use crate::ops::{Ops, Readiness};
use crate::store::StoreError;
use crate::supervise::{Failure, Supervisor};
use crate::{api, tasks};

/// The sockets of a controller.
#[derive(Debug)]
pub struct Listeners {
    /// The one port for browsers, kubectl and agents.
    pub doors: TcpListener,
    /// The operator's own, in the clear.
    pub ops: TcpListener,
}

/// Why a controller did not start, or stopped.
#[derive(Debug, Error)]
pub enum RunError {
    /// A socket cannot be bound.
    #[error("{address} cannot be bound")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process cannot listen to signals.
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    /// The installation cannot be opened.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The audit file of the gateway cannot be opened.
    #[error("the audit file {path} cannot be opened")]
    Audit {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The doors have no certificates.
    #[error("the doors' certificates cannot be made")]
    Certificates(#[from] CertificatesError),
    /// The port was lost.
    #[error("the address of the port is unknown")]
    Address(#[source] io::Error),
    /// A task without which nothing works failed.
    #[error(transparent)]
    Vital(#[from] Failure),
    /// The store did not close.
    #[error("the store did not close")]
    Close(#[source] StoreError),
    /// Anything else of the app's.
    #[error(transparent)]
    App(#[from] AppError),
}

impl Listeners {
    /// Binds both.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        let bind = async |address| {
            TcpListener::bind(address).await.map_err(|source| RunError::Bind { address, source })
        };
        Ok(Listeners { doors: bind(config.listen).await?, ops: bind(config.ops_listen).await? })
    }
}

/// Runs a controller until `shutdown` is cancelled or it cannot go on.
pub async fn run(
    mut config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.listen = listeners.doors.local_addr().map_err(RunError::Address)?;
    config.ops_listen = listeners.ops.local_addr().map_err(RunError::Address)?;
    let supervisor = Supervisor::new(shutdown);
    let limits = TunnelLimits { drain: config.grace.saturating_sub(LEAD), ..TunnelLimits::default() };
    let hub = Hub::new(uuid::Uuid::now_v7().to_string(), limits);
    let Opened { app, first_sign_in } = App::open(&config, Some(hub.clone()), Clock::system()).await?;
    start_rooms(&config, listeners, &app, &hub, &supervisor).await?;
    welcome::greet(&config, &app, first_sign_in.as_ref());
    supervisor.stopping().clone().cancelled().await;
    tracing::info!(grace_s = config.grace.as_secs(), "stopping");
    let ended = supervisor.finish(config.grace).await;
    if let Err(error) = app.leave_replicas().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the other replicas were not told; they will notice"
        );
    }
    app.close().await.map_err(RunError::Close)?;
    tracing::info!("stopped");
    Ok(ended?)
}

async fn start_rooms(
    config: &Config,
    listeners: Listeners,
    app: &App,
    hub: &Hub,
    supervisor: &Supervisor,
) -> Result<(), RunError> {
    let mut registry = Registry::with_prefix("culvert");
    let (edge_metrics, agent_metrics, gateway_metrics) =
        <(EdgeMetrics, AgentMetrics, GatewayMetrics)>::default();
    edge_metrics.register(&mut registry);
    agent_metrics.register(&mut registry, hub);
    gateway_metrics.register(&mut registry);

    let spool = start_audit(config, supervisor).await?;
    let tls = DoorCertificates::new(app, config).start(supervisor)?;
    let gateway = Gateway {
        app: app.clone(),
        hub: hub.clone(),
        live: LiveCalls::default(),
        books: Books { spool: spool.clone(), metrics: gateway_metrics, supervisor: supervisor.clone() },
    };
    gateway.start(supervisor);
    let agents = Agents::new(app.clone(), hub.clone(), agent_metrics, supervisor.clone());
    agents.start();
    tasks::start(app, supervisor);
    peers::start(app, hub, supervisor).await?;

    let http = HttpLimits { head_time: config.limits.header, ..HttpLimits::default() };
    let api = api::router(app, config, supervisor.stopping().clone());
    let names = Names::new(&config.domain);
    let edge = Edge::new(listeners.doors, names, tls, edge_limits(config), edge_metrics, supervisor.clone());
    let doors = Doors {
        app: app.clone(),
        api,
        agents,
        gateway,
        carried: edge.carried(),
        limits: http,
        supervisor: supervisor.clone(),
    };
    supervisor.vital("doors", edge.run(doors));
    supervisor.vital(
        "ops",
        Ops::new(registry, readiness(app, spool, supervisor)).run(listeners.ops, supervisor.clone()),
    );
    Ok(())
}

async fn start_audit(config: &Config, supervisor: &Supervisor) -> Result<Spool, RunError> {
    let path = config.data_dir.join("audit").join("gateway.jsonl");
    let opened = Spool::open(&path).await;
    let (spool, writer) =
        opened.map_err(|source| RunError::Audit { path: path.display().to_string(), source })?;
    supervisor.vital("audit", writer.run());
    Ok(spool)
}

fn edge_limits(config: &Config) -> EdgeLimits {
    let limits = &config.limits;
    EdgeLimits {
        handshakes: limits.handshakes,
        handshake: limits.handshake,
        hello: limits.handshake.min(EdgeLimits::default().hello),
        connections: limits.connections,
        connections_per_source: limits.connections_per_address,
        ..EdgeLimits::default()
    }
}

/// Ready means: not stopping, the store answers, and the audit can be written.
fn readiness(app: &App, spool: Spool, supervisor: &Supervisor) -> Readiness {
    let (app, stop) = (app.clone(), supervisor.stopping().clone());
    // A weak handle: the audit ends with the last of its users, and this is none.
    let spool = spool.watch();
    Arc::new(move || {
        let (app, stop, spool) = (app.clone(), stop.clone(), spool.clone());
        Box::pin(async move {
            if stop.is_cancelled() {
                return Err("stopping".to_owned());
            }
            if spool.is_failing() {
                return Err("the gateway's audit cannot be written".to_owned());
            }
            app.ready().await.map_err(|error| error.to_string())
        })
    })
}
