//! Bodies that pass the gateway, counted, and cut when the caller's right ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use culvert_tunnel::BodyError;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::live::{Cut, Lease};
use super::record::{Moved, Record};

/// A request's body on its way to the cluster.
pub(crate) struct Upload {
    body: Incoming,
    moved: Arc<Moved>,
}

impl Upload {
    pub(crate) fn new(body: Incoming, moved: Arc<Moved>) -> Self {
        Upload { body, moved }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.moved.up(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way to the caller.
pub(crate) enum Answer {
    /// The gateway's own words.
    Own(Option<Bytes>),
    /// The cluster's.
    Forwarded(Box<Forwarded>),
}

/// A body from the cluster.
pub(crate) struct Forwarded {
    body: culvert_tunnel::Body,
    moved: Arc<Moved>,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    record: Record,
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the caller's right to this stream has ended")]
    Cut,
    #[error("the tunnel broke the answer off")]
    Tunnel(#[source] BodyError),
}

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        Answer::Own((!bytes.is_empty()).then_some(bytes))
    }
}

impl Answer {
    /// `record` lives as long as the body does.
    pub(crate) fn forward(body: culvert_tunnel::Body, record: Record) -> Answer {
        let ended = record.lease().map(|lease| Box::pin(lease.ended()));
        Answer::Forwarded(Box::new(Forwarded { body, moved: record.moved(), ended, record }))
    }
}

impl Forwarded {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(cx).is_ready()
        {
            // A watch that ends cleanly is begun anew by its client, one that breaks is an error.
            let stopping = self.record.lease().and_then(Lease::cut) == Some(Cut::Stopping);
            return Poll::Ready((!stopping).then_some(Err(Broken::Cut)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.moved.down(data.len());
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::Tunnel)))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Answer::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Forwarded(forwarded) => forwarded.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(bytes) => bytes.is_none(),
            Answer::Forwarded(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Answer::Forwarded(forwarded) => forwarded.body.size_hint(),
        }
    }
}
