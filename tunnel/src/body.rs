//! The body of a request or an answer that went through the tunnel.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::BodyError;
use crate::holder::Holder;

/// Streams the bytes of a call. Dropping it before its end gives the call up.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full {
        data: Bytes,
        trailers: Option<HeaderMap>,
    },
    Stream {
        first: Bytes,
        holder: Holder,
        merge: usize,
        length: Option<u64>,
        ended: bool,
    },
}

impl Body {
    /// A body without a byte.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that is there already.
    #[must_use]
    pub fn full(data: impl Into<Bytes>) -> Self {
        Self::whole(data.into(), None)
    }

    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        if data.is_empty() && trailers.is_none() {
            Self::empty()
        } else {
            Self(Kind::Full { data, trailers })
        }
    }

    pub(crate) fn stream(first: Bytes, holder: Holder, merge: usize, length: Option<u64>) -> Self {
        Self(Kind::Stream { first, holder, merge, length, ended: false })
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Kind::Stream { first, holder, merge, length, ended } = &mut self.0 else {
            return Poll::Ready(None);
        };
        if *ended {
            return Poll::Ready(None);
        }
        if !first.is_empty() {
            return Poll::Ready(Some(Ok(data_frame(std::mem::take(first), length))));
        }
        let mut duplex = holder.duplex.lock();
        let frame = match std::task::ready!(duplex.poll_data(cx, *merge)) {
            Some(Ok(data)) => Some(Ok(data_frame(data, length))),
            Some(Err(error)) => Some(Err(error)),
            None => duplex.inbound.take_trailers().map(|trailers| trailers.map(Frame::trailers)),
        };
        drop(duplex);
        // After its end or an error the call needs no hold any more.
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            *ended = true;
        }
        Poll::Ready(frame)
    }
}

fn data_frame(data: Bytes, length: &mut Option<u64>) -> Frame<Bytes> {
    if let Some(length) = length {
        *length = length.saturating_sub(data.len() as u64);
    }
    Frame::data(data)
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full { data, .. } if !data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(data)))))
            }
            Kind::Full { trailers, .. } => Poll::Ready(trailers.take().map(|map| Ok(Frame::trailers(map)))),
            Kind::Stream { .. } => self.poll_stream(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full { data, trailers } => data.is_empty() && trailers.is_none(),
            Kind::Stream { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full { data, .. } => SizeHint::with_exact(data.len() as u64),
            Kind::Stream { length: Some(length), .. } => SizeHint::with_exact(*length),
            Kind::Stream { .. } => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Full { .. } => "Body(full)",
            Kind::Stream { .. } => "Body(stream)",
        })
    }
}
