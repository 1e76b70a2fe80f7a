//! Simulated agents: each connects, keeps its session, and comes back as the real one does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use culvert_integration::controller::DOMAIN;
use culvert_integration::hand::{Held, hello};
use culvert_integration::stage::clock;
use culvert_pki::name::TrustDomain;
use culvert_pki::tls::{ClientIdentity, trusted_client};
use culvert_tunnel::{
    Backoff, Call, Failure, FailureCode, Handler, Limits, Link, LinkEnd, Refusal, Reply, Signal, tune,
};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Agents that share an address of loopback.
const PER_ADDRESS: usize = 100;
/// TCP and TLS each take no longer than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Counts over all agents.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    welcomed: AtomicU64,
    live: AtomicU64,
    beats: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// Sessions begun.
    pub(crate) welcomed: u64,
    /// Sessions now.
    pub(crate) live: u64,
    /// Heartbeats that were echoed.
    pub(crate) beats: u64,
}

/// All agents; gone when dropped.
pub(crate) struct Fleet {
    counter: Counter,
    _agents: JoinSet<()>,
}

impl Counter {
    pub(crate) fn welcomed(&self) -> u64 {
        self.0.welcomed.load(Ordering::Relaxed)
    }
}

/// Where the agent of this number dials from.
pub(crate) fn address(at: usize) -> Ipv4Addr {
    let group = at / PER_ADDRESS;
    Ipv4Addr::new(127, 1, (group >> 8) as u8, (group & 0xff) as u8)
}

impl Fleet {
    pub(crate) fn start(controller: SocketAddr, identities: Vec<Held>) -> anyhow::Result<Self> {
        let (counter, mut agents) = (Counter::default(), JoinSet::new());
        let server = ServerName::try_from(DOMAIN.parse::<TrustDomain>()?.agents_server_name())?;
        for (at, held) in identities.into_iter().enumerate() {
            let identity = ClientIdentity { chain: &held.chain, key: &held.key };
            let tls = Arc::new(trusted_client(&held.roots, Some(identity), &[b"h2"], clock())?);
            let agent = Agent {
                controller,
                from: address(at),
                tls,
                server: server.clone(),
                counter: counter.clone(),
            };
            agents.spawn(agent.live());
        }
        Ok(Self { counter, _agents: agents })
    }

    pub(crate) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { welcomed, live, beats } = &*self.counter.0;
        Tally { welcomed: get(welcomed), live: get(live), beats: get(beats) }
    }
}

struct Agent {
    controller: SocketAddr,
    from: Ipv4Addr,
    tls: Arc<rustls::ClientConfig>,
    server: ServerName<'static>,
    counter: Counter,
}

impl Agent {
    async fn live(self) {
        let mut backoff = Backoff::new();
        loop {
            let retry_after = match self.session(&mut backoff).await {
                Ok(LinkEnd::Refused(Refusal { retry_after, .. })) => retry_after,
                Ok(_) | Err(_) => None,
            };
            tokio::time::sleep(backoff.failed(Instant::now(), retry_after)).await;
        }
    }

    async fn session(&self, backoff: &mut Backoff) -> anyhow::Result<LinkEnd> {
        let tcp = tokio::time::timeout(PATIENCE, self.dial()).await??;
        let tls = TlsConnector::from(self.tls.clone()).connect(self.server.clone(), tcp);
        let link = Link::start(tokio::time::timeout(PATIENCE, tls).await??, Limits::default()).await?;
        let (_facts, facts) = watch::channel(None);
        let (signals, heard) = mpsc::channel(4);
        let session = link.run(hello(), Nothing, facts, signals, CancellationToken::new());
        tokio::pin!(session);
        let listening = self.listen(heard, backoff);
        tokio::pin!(listening);
        tokio::select! {
            end = &mut session => Ok(end),
            () = &mut listening => Ok(session.await),
        }
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let tcp = socket.connect(self.controller).await?;
        tune(&tcp)?;
        Ok(tcp)
    }

    async fn listen(&self, mut heard: mpsc::Receiver<Signal>, backoff: &mut Backoff) {
        let mut live = None;
        while let Some(signal) = heard.recv().await {
            match signal {
                Signal::Welcome(_) => {
                    backoff.connected(Instant::now());
                    self.counter.0.welcomed.fetch_add(1, Ordering::Relaxed);
                    live.get_or_insert_with(|| Live::new(&self.counter));
                }
                Signal::Beat { .. } => {
                    self.counter.0.beats.fetch_add(1, Ordering::Relaxed);
                }
                Signal::Renew | Signal::Drain { .. } | Signal::HandedOver => {}
            }
        }
    }
}

/// Counted among the sessions of now until it is dropped.
struct Live(Counter);

impl Live {
    fn new(counter: &Counter) -> Self {
        counter.0.live.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// There is no cluster behind it.
#[derive(Clone)]
struct Nothing;

impl Handler for Nothing {
    async fn handle(&self, _: Call) -> Result<Reply, Failure> {
        Err(Failure::new(FailureCode::Unreachable, "a simulated agent reaches nothing"))
    }
}
