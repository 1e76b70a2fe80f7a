//! The agent's end: a connection to the controller, and the calls on it.

pub(crate) mod answer;
mod backoff;
mod calls;
mod channel;
mod control;
mod driver;
pub(crate) mod state;
mod types;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use culvert_proto::tunnel::v1 as proto;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Limits;
use crate::keepalive::KeepAlive;
use crate::meter::{Meter, Metered};
use crate::stream::Ledger;
use crate::wire::{CallId, Chunk};

pub use backoff::Backoff;
pub use channel::Channel;
use control::Control;
use driver::{Driver, Job};
pub use types::{Call, Handler, Io, Kind, LinkEnd, Reply, ReplyBody, Signal, Welcome};

/// Whether an agent understands this `Open`.
pub(crate) fn understood(open: proto::Open) -> bool {
    CallId::from_bytes(&open.call_id).is_some_and(|id| answer::parse(id, open).is_ok())
}

/// What is queued gets this long to leave when a link is closed.
const LINGER: Duration = Duration::from_secs(5);

/// The connection cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the controller cannot be used: {0}")]
pub struct LinkError(String);

/// One connection to the controller. When it is dropped what is queued is still
/// sent, then the connection closes and every call on it ends.
pub struct Link {
    pub(crate) send: SendRequest<Chunk>,
    limits: Limits,
    ledger: Ledger,
    jobs: mpsc::Sender<Job>,
    cause: Arc<OnceLock<String>>,
    meter: Arc<Meter>,
    driver: JoinHandle<()>,
    _closing: DropGuard,
}

impl Link {
    /// Begins HTTP/2 on a connection to the controller's agents' door, inside TLS.
    pub async fn start<IO>(io: IO, limits: Limits) -> Result<Self, LinkError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let meter = Meter::new();
        let handshake = driver::builder(&limits).handshake(Metered::new(io, meter.clone()));
        let (send, mut conn) = timeout(limits.handshake, handshake)
            .await
            .map_err(|_| LinkError("it does not take a byte".into()))?
            .map_err(|error| LinkError(error.to_string()))?;
        let keepalive = KeepAlive::new(conn.ping_pong(), limits.ping_idle, limits.ping_timeout);
        let closing = CancellationToken::new();
        let cause = Arc::new(OnceLock::new());
        let (jobs, new_jobs) = mpsc::channel(1);
        let driver = Driver::new(conn, keepalive, meter.clone(), new_jobs, cause.clone(), closing.clone());
        let driver = tokio::spawn(driver.run());
        let ledger = Ledger::new(&limits);
        Ok(Self { send, limits, ledger, jobs, cause, meter, driver, _closing: closing.drop_guard() })
    }

    /// For tonic's generated clients: other services on the same connection. It
    /// works as long as the link lives.
    #[must_use]
    pub fn channel(&self) -> Channel {
        Channel::new(self.send.clone())
    }

    /// Whether the connection has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.cause.get().is_some() || self.driver.is_finished()
    }

    /// Bytes received and sent so far, inside TLS.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.meter.bytes_in(), self.meter.bytes_out())
    }

    /// Opens `Control`, and answers calls until the session ends. `facts` are sent
    /// when there are some and when they change. When `stop` is cancelled no call
    /// is taken any more and the running ones get the limit for a drain to end;
    /// dropping the future ends them at once. A connection has one session: a
    /// second `run` is refused by the controller.
    pub async fn run<H: Handler>(
        &self,
        hello: proto::Hello,
        handler: H,
        facts: watch::Receiver<Option<proto::Facts>>,
        signals: mpsc::Sender<Signal>,
        stop: CancellationToken,
    ) -> LinkEnd {
        let control = match Control::open(self, hello, handler, facts, signals, stop).await {
            Ok(control) => control,
            Err(end) => return self.explain(end),
        };
        let (done, end) = oneshot::channel();
        if self.jobs.send(Job::new(control.run(), done)).await.is_err() {
            return self.explain(LinkEnd::Lost("closed".into()));
        }
        let end = end.await.unwrap_or_else(|_| LinkEnd::Lost("closed".into()));
        self.explain(end)
    }

    /// Sends what is queued, then closes the connection.
    pub async fn close(self) {
        let Self { send, driver, _closing, .. } = self;
        drop((send, _closing));
        // The driver limits itself; it cannot fail but by a panic, which it reports.
        let _ = timeout(LINGER * 2, driver).await;
    }

    /// A lost stream says little; the connection's own end says why.
    fn explain(&self, end: LinkEnd) -> LinkEnd {
        match (end, self.cause.get()) {
            (LinkEnd::Lost(_), Some(cause)) => LinkEnd::Lost(cause.clone()),
            (end, _) => end,
        }
    }
}
