//! A controller and an agent joined by a pipe in memory, with a test's own handler.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod hand;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use culvert_proto::tunnel::v1 as proto;
use culvert_tunnel::{
    Admission, Admitted, AgentKey, BoxError, Call, CallOptions, Cluster, Ended, Failure, Handler, Hub,
    Limits, Link, LinkEnd, Peer, Refusal, Reply, Signal,
};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Says yes to all.
#[derive(Clone, Copy)]
pub struct Open(pub u64);

impl Admission for Open {
    async fn admit(&self, _: AgentKey, _: &proto::Hello, _: SocketAddr) -> Result<Admitted, Refusal> {
        Ok(Admitted { epoch_floor: self.0 })
    }
}

/// A handler from a function.
#[derive(Clone)]
pub struct Does<F>(pub F);

impl<F, R> Handler for Does<F>
where
    F: Fn(Call) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Reply, Failure>> + Send,
{
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Failure>> + Send {
        (self.0)(call)
    }
}

pub fn key() -> AgentKey {
    AgentKey { org: Uuid::from_u128(1), agent: Uuid::from_u128(2) }
}

pub fn peer() -> Peer {
    Peer { agent: Some(key()), source: "192.0.2.1:1000".parse().unwrap(), not_after: None }
}

pub fn hello() -> proto::Hello {
    proto::Hello { version: "0.1.0".into(), instance: vec![7; 16].into(), ..proto::Hello::default() }
}

/// An answer that is there already.
pub fn say(body: impl Into<Bytes>) -> Result<Reply, Failure> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    Ok(Reply::Http(http::Response::new(body.boxed_unsync())))
}

/// A body fed through a channel.
pub fn fed() -> (mpsc::Sender<Bytes>, http::Response<culvert_tunnel::ReplyBody>) {
    let (feed, mut fed) = mpsc::channel::<Bytes>(1);
    let frames = futures::stream::poll_fn(move |cx| fed.poll_recv(cx));
    let body = http_body_util::StreamBody::new(futures::StreamExt::map(frames, |data| {
        Ok::<_, BoxError>(http_body::Frame::data(data))
    }));
    (feed, http::Response::new(body.boxed_unsync()))
}

/// No other services.
pub fn none() -> tonic::service::Routes {
    tonic::service::Routes::default()
}

/// Both ends.
pub struct Site {
    pub hub: Hub,
    pub served: JoinHandle<Ended>,
    pub agent: JoinHandle<LinkEnd>,
    pub signals: mpsc::Receiver<Signal>,
    pub facts: watch::Sender<Option<proto::Facts>>,
    pub stop_controller: CancellationToken,
    pub stop_agent: CancellationToken,
}

/// Limits for tests: the same, a little quicker.
pub fn limits() -> Limits {
    Limits { reaper_tick: Duration::from_millis(50), drain: Duration::from_secs(5), ..Limits::default() }
}

impl Site {
    /// A site of its own hub.
    pub async fn new<H: Handler>(handler: H) -> Self {
        Self::with(&Hub::new("replica".into(), limits()), limits(), hello(), handler).await
    }

    /// Another connection to a hub, up and running.
    pub async fn with<H: Handler>(hub: &Hub, limits: Limits, hello: proto::Hello, handler: H) -> Self {
        let mut site = Self::start(hub, limits, hello, handler).await;
        let first = tokio::time::timeout(PATIENCE, site.signals.recv()).await.expect("a Welcome in time");
        assert!(matches!(first, Some(Signal::Welcome(_))), "got {first:?}");
        site
    }

    /// The same, not waiting for the session.
    pub async fn start<H: Handler>(hub: &Hub, limits: Limits, hello: proto::Hello, handler: H) -> Self {
        let (near, far) = tokio::io::duplex(256 << 10);
        Self::over(hub, near, far, limits, hello, handler).await
    }

    /// Another agent than the usual one, up and running.
    pub async fn over_as<H: Handler>(hub: &Hub, agent: AgentKey, handler: H) -> Self {
        let (near, far) = tokio::io::duplex(256 << 10);
        let peer = Peer { agent: Some(agent), ..peer() };
        let mut site = Self::between(hub, peer, near, far, limits(), hello(), handler).await;
        let first = tokio::time::timeout(PATIENCE, site.signals.recv()).await.expect("a Welcome in time");
        assert!(matches!(first, Some(Signal::Welcome(_))), "got {first:?}");
        site
    }

    pub async fn over<H, A, B>(
        hub: &Hub,
        near: A,
        far: B,
        limits: Limits,
        hello: proto::Hello,
        handler: H,
    ) -> Self
    where
        H: Handler,
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::between(hub, peer(), near, far, limits, hello, handler).await
    }

    pub async fn between<H, A, B>(
        hub: &Hub,
        peer: Peer,
        near: A,
        far: B,
        limits: Limits,
        hello: proto::Hello,
        handler: H,
    ) -> Self
    where
        H: Handler,
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stop_controller, stop_agent) = (CancellationToken::new(), CancellationToken::new());
        let served = {
            let (hub, stop) = (hub.clone(), stop_controller.clone());
            tokio::spawn(async move { hub.serve(near, peer, Open(0), none(), stop).await })
        };
        let (signal, signals) = mpsc::channel(64);
        let (facts, facts_seen) = watch::channel(None);
        let stop = stop_agent.clone();
        let agent = tokio::spawn(async move {
            let link = Link::start(far, limits).await.expect("HTTP/2 begins");
            let end = link.run(hello, handler, facts_seen, signal, stop).await;
            link.close().await;
            end
        });
        Self { hub: hub.clone(), served, agent, signals, facts, stop_controller, stop_agent }
    }

    pub fn cluster(&self) -> Cluster {
        self.hub.cluster(key())
    }

    /// A GET, and its whole body.
    pub async fn get(&self, path: &str) -> Result<Bytes, BoxError> {
        get(&self.cluster(), path).await
    }

    /// Waits until the hub says there are this many open calls.
    pub async fn until_open_calls(&self, want: u64) {
        let hub = self.hub.clone();
        until("open calls", || (hub.session(key()).map_or(0, |session| session.open_calls), want)).await;
    }
}

pub async fn get(cluster: &Cluster, path: &str) -> Result<Bytes, BoxError> {
    let request = http::Request::get(path).body(String::new())?;
    let response = tokio::time::timeout(PATIENCE, cluster.call(request, CallOptions::default())).await??;
    Ok(tokio::time::timeout(PATIENCE, response.into_body().collect()).await??.to_bytes())
}

/// Waits until both values are equal, and says the last ones when they never are.
pub async fn until<T: PartialEq + std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (T, T)) {
    let begin = tokio::time::Instant::now();
    loop {
        let (have, want) = look();
        if have == want {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {have:?}, want {want:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Counts how many of its clones' guards live.
#[derive(Clone, Default)]
pub struct Alive(Arc<AtomicUsize>);

pub struct Guard(Arc<AtomicUsize>);

impl Alive {
    pub fn guard(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(self.0.clone())
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub async fn until(&self, want: usize) {
        until("living handlers", || (self.count(), want)).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that are not all alike, without randomness.
pub fn pattern(len: usize) -> Bytes {
    let state = AtomicU64::new(88_172_645_463_325_252);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        let mut x = state.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.store(x, Ordering::Relaxed);
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
