//! A stretch of network between agent and controller that can fail in the ways that
//! networks do.
//!
//! [`FaultProxy`] passes TCP connections on, byte for byte, and sees nothing inside
//! TLS, as a balancer or a firewall does. What it does to them is set while it runs:
//! the state of the line by [`FaultProxy::set`], and single events by the methods
//! that are named after them.

mod connection;
mod line;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};

use connection::{Event, Way};

/// The state of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// How much later each byte arrives. It costs time and no throughput.
    pub latency: Duration,
    /// Bytes a second that pass at most.
    pub bytes_per_second: Option<u64>,
    /// No byte makes progress, and none is lost: all go on once this is false again.
    pub stopped: bool,
    /// From the first chunk of more than so many bytes on nothing passes any more.
    /// Counted once the agent has spoken twice, which is after its TLS handshake.
    pub held_from: Option<usize>,
}

/// The state of the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From agent to controller.
    pub up: Flow,
    /// From controller to agent.
    pub down: Flow,
    /// A connection on which nothing passed for so long is forgotten: nobody is told,
    /// and nothing passes any more.
    pub forgotten_after: Option<Duration>,
    /// New connections are accepted and lead nowhere, as with a firewall that drops.
    pub dead_end: bool,
}

impl Faults {
    /// Both directions stand still.
    #[must_use]
    pub fn black_hole() -> Self {
        let flow = Flow { stopped: true, ..Flow::default() };
        Self { up: flow.clone(), down: flow, ..Self::default() }
    }

    /// Both directions take `latency`.
    #[must_use]
    pub fn slow(latency: Duration) -> Self {
        let flow = Flow { latency, ..Flow::default() };
        Self { up: flow.clone(), down: flow, ..Self::default() }
    }
}

/// What all connections share.
struct Shared {
    faults: watch::Sender<Faults>,
    events: broadcast::Sender<Event>,
    upstreams: watch::Sender<Vec<SocketAddr>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// Passes TCP connections on; gone when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Listens on a free port of loopback and passes on to `upstream`.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::balancing(vec![upstream]).await
    }

    /// The same as a balancer: each connection goes to the next of `upstreams`.
    pub async fn balancing(upstreams: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            faults: watch::Sender::default(),
            events: broadcast::Sender::new(16),
            upstreams: watch::Sender::new(upstreams),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let address = crate::process::free_address("127.0.0.1")?;
        let mut proxy = Self { address, shared, task: None };
        proxy.resume().await?;
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections of which at least one end still believes that they live.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// From now on the line is so, for connections that exist as well.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// New connections go there from now on, as after a change in DNS.
    pub fn lead_to(&self, upstreams: Vec<SocketAddr>) {
        self.shared.upstreams.send_replace(upstreams);
    }

    /// Ends all connections with a reset at both ends.
    pub fn reset(&self) {
        self.tell(Event::Reset);
    }

    /// The controller's ends are closed and the agents hear nothing of it.
    pub fn leave_agents_half_open(&self) {
        self.tell(Event::CloseToController);
    }

    /// The agents' ends are closed and the controller hears nothing of it.
    pub fn leave_controller_half_open(&self) {
        self.tell(Event::CloseToAgent);
    }

    /// Ends as a proxy that is stopped: the port is closed, and every connection.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was told to end and does; how is of no interest.
            let _ = task.await;
        }
    }

    /// Listens again at the same address, after [`Self::stop`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.task = Some(tokio::spawn(accept(listener, self.shared.clone())));
        Ok(())
    }

    fn tell(&self, event: Event) {
        // Without a connection there is nobody to tell.
        let _ = self.shared.events.send(event);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Ends its connections when it ends.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((agent, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(agent, number, shared.clone()));
    }
}

/// Counts a connection for as long as it lasts.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(agent: TcpStream, number: usize, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(shared.clone());
    let (faults, events) = (shared.faults.subscribe(), shared.events.subscribe());
    if faults.borrow().dead_end {
        return connection::dead_end(agent, events).await;
    }
    let upstreams = shared.upstreams.borrow().clone();
    let Some(upstream) = upstreams.get(number % upstreams.len().max(1)) else { return };
    // Whoever dials in vain is told so by the end of its own connection.
    let Ok(controller) = TcpStream::connect(upstream).await else { return };
    Way::new(agent, controller, faults, events).carry().await;
}

#[cfg(test)]
mod tests;
