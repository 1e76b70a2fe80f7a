//! A stretch of network between agent and controller that can lose things.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Passes TCP connections on, byte for byte; gone when dropped.
pub struct Relay {
    address: SocketAddr,
    faults: Arc<Faults>,
    task: JoinHandle<()>,
    cut: CancellationToken,
}

#[derive(Default)]
struct Faults {
    /// Bytes of one chunk from which on nothing more comes back; 0 is never.
    hold: AtomicUsize,
}

impl Relay {
    /// Listens on a free port of loopback and passes on to `upstream`.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::before(vec![upstream]).await
    }

    /// As a balancer does: passes on to the first of `upstreams` that can be reached.
    pub async fn before(upstreams: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (faults, cut) = (Arc::new(Faults::default()), CancellationToken::new());
        let (shared, cutting) = (faults.clone(), cut.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (faults, cut) = (shared.clone(), cutting.clone());
                let upstreams = upstreams.clone();
                tokio::spawn(async move { cut.run_until_cancelled(pass(client, upstreams, faults)).await });
            }
        });
        Ok(Self { address, faults, task, cut })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the first chunk of more than `bytes` that comes back after the TLS
    /// handshake, nothing comes back any more. The connection stays open.
    pub fn hold_answers_larger_than(&self, bytes: usize) {
        self.faults.hold.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.cut.cancel();
    }
}

async fn pass(client: TcpStream, upstreams: Vec<SocketAddr>, faults: Arc<Faults>) {
    let Ok(server) = TcpStream::connect(upstreams.as_slice()).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    tokio::join!(up(from_client, to_server, sent.clone()), down(from_server, to_client, sent, faults));
}

/// Counts what the client has said: the ClientHello is the first, and what comes
/// after is the end of its handshake.
async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sent: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        sent.fetch_add(1, Ordering::SeqCst);
        if to.write_all(buffer.get(..length).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, sent: Arc<AtomicUsize>, faults: Arc<Faults>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let hold = faults.hold.load(Ordering::Relaxed);
        if hold > 0 && length > hold && sent.load(Ordering::SeqCst) > 1 {
            std::future::pending::<()>().await;
        }
        if to.write_all(buffer.get(..length).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
