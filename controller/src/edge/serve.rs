//! Speaks HTTP/1.1 or HTTP/2 on a door's connection, within limits.
//!
//! ALPN has already said which version it is, so nothing is guessed from the first bytes and
//! no client can hold a connection open by sending none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::supervise::Supervisor;

/// What a room behind an HTTP door is to the edge.
pub(crate) trait Service: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

/// The limits of an HTTP connection.
#[derive(Debug, Clone)]
pub(crate) struct HttpLimits {
    /// Time for a whole request head, and for the silence before it on HTTP/1.1.
    pub(crate) head_time: Duration,
    /// Bytes of a request head.
    pub(crate) head_size: u32,
    /// Header fields of a request on HTTP/1.1.
    pub(crate) headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub(crate) streams: u32,
    /// Unread bytes of one request body.
    pub(crate) stream_window: u32,
    /// Unread bytes of one HTTP/2 connection. Larger than a few streams' so that a stalled
    /// upload does not stop its neighbours.
    pub(crate) connection_window: u32,
    /// A connection without a request for this long is closed.
    pub(crate) idle: Duration,
    /// After this much silence an HTTP/2 client is asked for a sign of life, and given the same
    /// time to answer.
    pub(crate) ping: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            head_time: Duration::from_secs(20),
            head_size: 64 * 1024,
            headers: 128,
            streams: 250,
            stream_window: 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            idle: Duration::from_secs(180),
            ping: Duration::from_secs(20),
        }
    }
}

/// Time that an idle connection has to take note of its end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection until it ends. When the process stops it takes no new request and ends
/// with its last answer.
pub(crate) async fn serve<S: Service, IO>(
    stream: TlsStream<IO>,
    http2: bool,
    service: S,
    limits: &HttpLimits,
    supervisor: &Supervisor,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let counted = Counted { service, activity: activity.clone() };
    let io = TokioIo::new(stream);
    let result = if http2 {
        let connection = two(limits, supervisor).serve_connection(io, counted);
        drive(pin!(connection), |c| c.graceful_shutdown(), &activity, limits.idle, supervisor).await
    } else {
        let connection = one(limits).serve_connection(io, counted).with_upgrades();
        drive(pin!(connection), |c| c.graceful_shutdown(), &activity, limits.idle, supervisor).await
    };
    if let Err(error) = result {
        tracing::debug!(%error, "http connection ended early");
    }
}

fn one(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_size as usize)
        .max_headers(limits.headers);
    builder
}

fn two(limits: &HttpLimits, supervisor: &Supervisor) -> http2::Builder<Supervisor> {
    let mut builder = http2::Builder::new(supervisor.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_size)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_send_buf_size(limits.stream_window as usize)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping);
    builder
}

/// Polls a connection, and asks it to end when it is idle for long or the process stops.
async fn drive<C, G>(
    mut connection: Pin<&mut C>,
    end: G,
    activity: &Activity,
    idle: Duration,
    supervisor: &Supervisor,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
    G: Fn(Pin<&mut C>),
{
    let stop = supervisor.stopping();
    loop {
        let due = activity.idle_since().map_or_else(|| Instant::now() + idle, |since| since + idle);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = stop.cancelled() => {
                end(connection.as_mut());
                return connection.await;
            }
            () = sleep_until(due) => {}
        }
        if activity.idle_since().is_some_and(|since| since + idle <= Instant::now()) {
            end(connection.as_mut());
            return tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()));
        }
    }
}

/// How many requests of a connection are being answered, and since when none is.
#[derive(Debug)]
struct Activity {
    requests: AtomicUsize,
    last: Mutex<Instant>,
}

impl Activity {
    fn new() -> Self {
        Activity { requests: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    fn idle_since(&self) -> Option<Instant> {
        (self.requests.load(Ordering::Acquire) == 0)
            .then(|| *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request that is being answered, its answer's body included.
#[derive(Debug)]
struct Busy(Arc<Activity>);

impl Busy {
    fn begin(activity: &Arc<Activity>) -> Busy {
        activity.requests.fetch_add(1, Ordering::AcqRel);
        Busy(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Counted<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Counted<S> {
    type Response = Response<BusyBody<S::Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = Busy::begin(&self.activity);
        let answer = self.service.answer(request);
        Box::pin(async move { Ok(answer.await.map(|body| BusyBody { body, _busy: busy })) })
    }
}

/// A body that counts as activity until it is sent or dropped.
struct BusyBody<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for BusyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
