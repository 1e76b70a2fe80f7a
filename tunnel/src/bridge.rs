//! Ordinary gRPC beside the tunnel on the same connection: h2 streams as
//! `http_body` and back, with flow control.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body, Frame};

use crate::BoxError;
use crate::wire::Chunk;

/// Bytes and trailers of a stream as they come; credit is given as they are taken.
pub(crate) struct RawBody {
    stream: RecvStream,
    data_done: bool,
}

impl RawBody {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, data_done: false }
    }
}

impl Body for RawBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match std::task::ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        Poll::Ready(match std::task::ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|map| Ok(Frame::trailers(map))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Sends a body to its end; resets the stream when the body fails.
pub(crate) async fn send_body<B>(body: B, mut stream: SendStream<Chunk>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    loop {
        let frame = std::future::poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            // What the error says has no place on the wire.
            body.as_mut().poll_frame(cx).map(|frame| Some(frame.map(|frame| frame.map_err(drop))))
        })
        .await;
        let sent = match frame {
            // Reset by the other end: nobody listens.
            None => return,
            Some(None) => return drop(stream.send_data(Chunk::default(), true)),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => send_data(&mut stream, data).await,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return drop(stream.send_trailers(trailers));
                }
            },
            Some(Some(Err(_))) => None,
        };
        if sent.is_none() {
            return stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

async fn send_data(stream: &mut SendStream<Chunk>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        }
        let room = stream.capacity().min(data.len());
        if room > 0 {
            stream.send_data(Chunk::raw(data.split_to(room)), false).ok()?;
        }
    }
    Some(())
}
