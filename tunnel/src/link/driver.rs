//! The task of a connection at the agent: HTTP/2, the clock, and `Control`, which
//! runs in this same task so that an `Open` costs one wake-up less.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use h2::client::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{LINGER, LinkEnd};
use crate::Limits;
use crate::keepalive::KeepAlive;
use crate::meter::{Meter, Metered};
use crate::turn::Turn;
use crate::wire::Chunk;

pub(super) fn builder(limits: &Limits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    let streams = limits.max_streams() as usize;
    builder
        .initial_connection_window_size(limits.connection_window)
        .initial_window_size(limits.stream_window)
        .max_frame_size(limits.max_frame)
        .max_header_list_size(limits.max_header_list())
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(limits.frame_overhead)
        .max_concurrent_reset_streams(streams)
        .max_local_error_reset_streams(Some(limits.max_stream_errors))
        .enable_push(false);
    builder
}

/// A future that is polled in the driver's task.
pub(super) struct Job {
    work: BoxFuture<'static, LinkEnd>,
    done: Option<oneshot::Sender<LinkEnd>>,
}

impl Job {
    pub(super) fn new(
        work: impl Future<Output = LinkEnd> + Send + 'static,
        done: oneshot::Sender<LinkEnd>,
    ) -> Self {
        Self { work: Box::pin(work), done: Some(done) }
    }

    /// Ready when it is done or nobody waits for it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(done) = &mut self.done else { return Poll::Ready(()) };
        if done.poll_closed(cx).is_ready() {
            return Poll::Ready(());
        }
        let end = std::task::ready!(self.work.as_mut().poll(cx));
        if let Some(done) = self.done.take() {
            // Whoever asked may have gone in this moment.
            let _ = done.send(end);
        }
        Poll::Ready(())
    }
}

pub(super) struct Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    conn: Connection<Metered<IO>, Chunk>,
    keepalive: KeepAlive,
    meter: Arc<Meter>,
    jobs: mpsc::Receiver<Job>,
    job: Option<Job>,
    cause: Arc<OnceLock<String>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    turn: Turn,
}

impl<IO> Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(
        conn: Connection<Metered<IO>, Chunk>,
        keepalive: KeepAlive,
        meter: Arc<Meter>,
        jobs: mpsc::Receiver<Job>,
        cause: Arc<OnceLock<String>>,
        closing: CancellationToken,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        let closing = Box::pin(closing.cancelled_owned());
        Self { conn, keepalive, meter, jobs, job: None, cause, closing, timer, turn: Turn::default() }
    }

    pub(super) async fn run(mut self) {
        let cause = poll_fn(|cx| self.poll(cx)).await;
        match cause {
            // The other end or the network ended it; streams hear of it as it is dropped.
            Some(cause) => {
                let _ = self.cause.set(cause);
                let Self { conn, mut job, .. } = self;
                drop(conn);
                if let Some(job) = &mut job {
                    poll_fn(|cx| job.poll(cx)).await;
                }
            }
            // We do: calls end, and what is queued gets a moment.
            None => {
                drop(self.job.take());
                let _ = timeout(LINGER, self.conn).await;
            }
        }
    }

    /// Why the connection ended; `None` when it is to be closed from here.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        if self.turn.wait(self.meter.calls(), cx) {
            return Poll::Pending;
        }
        if self.job.is_none()
            && let Poll::Ready(Some(job)) = self.jobs.poll_recv(cx)
        {
            self.job = Some(job);
        }
        if let Some(job) = &mut self.job
            && job.poll(cx).is_ready()
        {
            self.job = None;
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(end) = Pin::new(&mut self.conn).poll(cx) {
            return Poll::Ready(Some(
                end.map_or_else(|error| error.to_string(), |()| "closed by the controller".into()),
            ));
        }
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.poll_clock(cx)
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.keepalive.poll(cx);
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match self.keepalive.check(now, self.meter.last_read()) {
                Ok(next) => self.timer.as_mut().reset(next.max(now + Duration::from_millis(1))),
                Err(_) => return Poll::Ready(Some("the controller does not answer a PING".into())),
            }
        }
        Poll::Pending
    }
}
