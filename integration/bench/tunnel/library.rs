//! Culvert's tunnel library as a TCP tunnel: a hub, and a link whose calls dial the origin.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{
    Admission, Admitted, AgentKey, Backoff, Call, CallOptions, Dialer, Failure, FailureCode, Handler, Hub,
    Limits, Link, Peer, Refusal, Reply, Signal, tune,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::certificates;
use crate::relay::dial;

const AGENT: AgentKey = AgentKey { org: Uuid::from_u128(1), agent: Uuid::from_u128(2) };

struct Yes;

impl Admission for Yes {
    async fn admit(&self, _: AgentKey, _: &proto::Hello, _: SocketAddr) -> Result<Admitted, Refusal> {
        Ok(Admitted::default())
    }
}

/// The controller's end: users' connections become calls to the agent.
pub(crate) async fn hub(folder: &Path, users: SocketAddr, agents: SocketAddr) -> anyhow::Result<()> {
    let hub = Hub::new("bench".to_owned(), Limits::default());
    tokio::spawn(serve_agents(
        hub.clone(),
        TcpListener::bind(agents).await?,
        certificates::server(folder, &[b"h2"])?,
    ));
    let listener = TcpListener::bind(users).await?;
    loop {
        let (user, _) = listener.accept().await?;
        user.set_nodelay(true)?;
        let cluster = hub.cluster(AGENT);
        tokio::spawn(async move {
            let far = cluster.connect("origin", CallOptions::default()).await?;
            far.join(user).await?;
            anyhow::Ok(())
        });
    }
}

async fn serve_agents(
    hub: Hub,
    listener: TcpListener,
    tls: std::sync::Arc<rustls::ServerConfig>,
) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(tls);
    loop {
        let (agent, source) = listener.accept().await?;
        tune(&agent)?;
        let (hub, tls) = (hub.clone(), tls.clone());
        tokio::spawn(async move {
            let io = tls.accept(agent).await?;
            let peer = Peer { agent: Some(AGENT), source, not_after: None };
            let none = tonic::service::Routes::default();
            anyhow::Ok(hub.serve(io, peer, Yes, none, CancellationToken::new()).await)
        });
    }
}

/// Dials the origin for every call.
#[derive(Clone)]
struct Dials(SocketAddr);

impl Handler for Dials {
    async fn handle(&self, _: Call) -> Result<Reply, Failure> {
        let io: TcpStream =
            dial(self.0).await.map_err(|error| Failure::new(FailureCode::Unreachable, error.to_string()))?;
        Ok(Reply::Stream { head: http::Response::new(()), io: Box::new(io) })
    }
}

/// The agent's end: connects, and comes back as an agent does.
pub(crate) async fn link(folder: &Path, hub: SocketAddr, origin: SocketAddr) -> anyhow::Result<()> {
    let tls = certificates::client(folder, &[b"h2"])?;
    let dialer = Dialer::new(hub.to_string(), certificates::server_name()?, tls);
    let mut backoff = Backoff::new();
    loop {
        let end = session(&dialer, origin).await;
        tracing::info!(?end, "the session ended");
        tokio::time::sleep(backoff.failed(Instant::now(), None)).await;
    }
}

async fn session(dialer: &Dialer, origin: SocketAddr) -> anyhow::Result<culvert_tunnel::LinkEnd> {
    let link = Link::start(dialer.dial().await?, Limits::default()).await?;
    let hello = proto::Hello { instance: Uuid::new_v4().into_bytes().to_vec().into(), ..Default::default() };
    let (_facts, facts) = watch::channel(None);
    let (signal, mut signals) = mpsc::channel::<Signal>(16);
    tokio::spawn(async move { while signals.recv().await.is_some() {} });
    Ok(link.run(hello, Dials(origin), facts, signal, CancellationToken::new()).await)
}
