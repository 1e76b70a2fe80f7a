//! The calls that run now, so that a changed policy can cut those it no longer lets through.
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::policy::request::Request;
use crate::policy::{Denial, Policy};

/// What a call is about, kept for as long as it runs.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A request to the API server in somebody's name.
    Request { request: Request, user: String, groups: Vec<String> },
    /// A connection to a TCP target.
    Target(String),
}

impl Subject {
    /// Asks the policy.
    pub(super) fn check(&self, policy: &Policy) -> Result<(), Denial> {
        match self {
            Subject::Request { request, user, groups } => {
                policy.check_request(request)?;
                policy.check_caller(user, groups)
            }
            Subject::Target(name) => policy.check_target(name).map(|_| ()),
        }
    }
}

/// All calls that run.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    running: HashMap<u64, (Subject, CancellationToken)>,
}

impl Live {
    /// Enters a call. Enter first and check the policy after, or a change in
    /// between is missed.
    pub(super) fn enter(&self, subject: Subject) -> Ticket {
        let cut = CancellationToken::new();
        let mut calls = self.lock();
        calls.next = calls.next.wrapping_add(1);
        let id = calls.next;
        calls.running.insert(id, (subject, cut.clone()));
        Ticket { id, live: self.clone(), cut }
    }

    /// Cuts every call that `policy` does not let through; how many those were.
    pub(super) fn review(&self, policy: &Policy) -> usize {
        let calls = self.lock();
        let forbidden = calls.running.values().filter(|(subject, _)| subject.check(policy).is_err());
        forbidden.map(|(_, cut)| cut.cancel()).count()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().running.len()
    }

    /// Nothing that holds the lock can leave the table half changed.
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place among those that run; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    id: u64,
    live: Live,
    cut: CancellationToken,
}

impl Ticket {
    /// Ends when the call is cut.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.live.lock().running.remove(&self.id);
    }
}

/// A body or a byte stream that ends in an error when its call is cut.
///
/// Reading and writing may wait in two tasks, so each has a waker of its own.
pub(super) struct Guarded<T> {
    inner: T,
    cut_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_writing: Pin<Box<WaitForCancellationFutureOwned>>,
    _ticket: Ticket,
}

impl<T> Guarded<T> {
    pub(super) fn new(inner: T, ticket: Ticket) -> Guarded<T> {
        let cut = || Box::pin(ticket.cut.clone().cancelled_owned());
        Guarded { inner, cut_reading: cut(), cut_writing: cut(), _ticket: ticket }
    }
}

/// The error of a call that is cut.
fn poll_cut(cut: &mut Pin<Box<WaitForCancellationFutureOwned>>, cx: &mut Context<'_>) -> Option<io::Error> {
    match cut.as_mut().poll(cx) {
        Poll::Ready(()) => Some(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the cluster's local policy changed and no longer allows this call",
        )),
        Poll::Pending => None,
    }
}

impl<B> Body for Guarded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(error) = poll_cut(&mut this.cut_reading, cx) {
            return Poll::Ready(Some(Err(error.into())));
        }
        Pin::new(&mut this.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = poll_cut(&mut this.cut_reading, cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(error) = poll_cut(&mut this.cut_writing, cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn subject(uri: &str) -> Subject {
        let request = Request::read(&http::Method::GET, &uri.parse().unwrap());
        Subject::Request { request, user: "culvert:anna".to_owned(), groups: Vec::new() }
    }

    #[tokio::test]
    async fn a_change_cuts_what_it_forbids_and_nothing_else() {
        let live = Live::default();
        let (near, mut far) = tokio::io::duplex(64);
        let mut secrets = Guarded::new(near, live.enter(subject("/api/v1/namespaces/a/secrets?watch=1")));
        let (near, mut other) = tokio::io::duplex(64);
        let mut pods = Guarded::new(near, live.enter(subject("/api/v1/namespaces/a/pods?watch=1")));
        let waiting = tokio::spawn(async move {
            let mut buffer = [0; 8];
            let read = secrets.read(&mut buffer).await;
            let write = secrets.write(b"x").await;
            (read.map_err(|e| e.kind()), write.map_err(|e| e.kind()))
        });
        tokio::task::yield_now().await;
        let policy = Policy::parse("deny: [{resources: [secrets]}]").unwrap();
        assert_eq!(live.review(&policy), 1);
        let aborted = io::ErrorKind::ConnectionAborted;
        assert_eq!(waiting.await.unwrap(), (Err(aborted), Err(aborted)));
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        other.write_all(b"still").await.unwrap();
        let mut buffer = [0; 5];
        pods.read_exact(&mut buffer).await.unwrap();
        assert_eq!(live.count(), 1);
        drop(pods);
        assert_eq!(live.count(), 0);
    }
}
