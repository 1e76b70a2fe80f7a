//! The sender's half of merging: what a body has ready becomes one batch.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use http_body::{Body, Frame};

use super::SharedDuplex;
use crate::wire::headers_to_wire;
use crate::{BodyError, BoxError};

/// Chunks at least this long go as they are; copying them costs more than a frame.
const LARGE: usize = 16 << 10;

/// What a body had ready.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Empty only at the end.
    pub(crate) data: Bytes,
    /// The body ended, with these trailers.
    pub(crate) end: Option<Vec<proto::Header>>,
}

/// A body read in batches.
pub(crate) struct Gatherer<B> {
    body: Pin<Box<B>>,
    held: VecDeque<Bytes>,
    end: Option<Vec<proto::Header>>,
    merge: usize,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The body itself failed.
    #[error("the body failed: {0}")]
    Body(BoxError),
    /// Nobody takes it any more.
    #[error(transparent)]
    Tunnel(BodyError),
}

impl<B> Gatherer<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(body: B, merge: usize) -> Self {
        Self { body: Box::pin(body), held: VecDeque::new(), end: None, merge }
    }

    /// Gives back a batch, or what is left of one, to come out again.
    pub(crate) fn resume(&mut self, batch: Batch) {
        if !batch.data.is_empty() {
            self.held.push_front(batch.data);
        }
        if batch.end.is_some() {
            self.end = batch.end;
        }
    }

    /// The length of the body, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Everything that is ready, up to about `merge` bytes, but at least something.
    pub(crate) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Batch, BoxError>> {
        let mut first = Bytes::new();
        let mut merged = BytesMut::new();
        while first.len().max(merged.len()) < self.merge {
            let data = match self.poll_chunk(cx) {
                Poll::Ready(Ok(Some(data))) => data,
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if first.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            if first.is_empty() {
                first = data;
                if first.len() >= LARGE {
                    break;
                }
            } else if data.len() >= LARGE {
                self.held.push_back(data);
                break;
            } else {
                if merged.is_empty() {
                    merged.extend_from_slice(&first);
                }
                merged.extend_from_slice(&data);
            }
        }
        let data = if merged.is_empty() { first } else { merged.freeze() };
        let end = if self.held.is_empty() { self.take_end() } else { None };
        Poll::Ready(Ok(Batch { data, end }))
    }

    fn take_end(&mut self) -> Option<Vec<proto::Header>> {
        self.end.take().or_else(|| self.body.is_end_stream().then(Vec::new))
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BoxError>> {
        if let Some(held) = self.held.pop_front() {
            return Poll::Ready(Ok(Some(held)));
        }
        loop {
            if self.end.is_some() {
                return Poll::Ready(Ok(None));
            }
            match std::task::ready!(self.body.as_mut().poll_frame(cx)) {
                None => self.end = Some(Vec::new()),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Ok(Some(data))),
                    Err(frame) => self.end = Some(trailers(frame)),
                },
            }
        }
    }

    /// Sends everything to the end of the body, and ends the direction. Tells
    /// `moved` of every piece. Stops when the other end gives up.
    pub(crate) async fn send_all(&mut self, duplex: &SharedDuplex, moved: impl Fn()) -> Result<(), Broken> {
        loop {
            let batch = std::future::poll_fn(|cx| {
                if let Poll::Ready(error) = duplex.lock().poll_aborted(cx) {
                    return Poll::Ready(Err(Broken::Tunnel(error)));
                }
                self.poll_batch(cx).map_err(Broken::Body)
            })
            .await?;
            if send_batch(duplex, batch, &moved).await.map_err(Broken::Tunnel)? {
                return Ok(());
            }
        }
    }
}

/// Sends one batch; says whether it was the last.
pub(crate) async fn send_batch(
    duplex: &SharedDuplex,
    batch: Batch,
    moved: &impl Fn(),
) -> Result<bool, BodyError> {
    let Batch { mut data, end } = batch;
    while !data.is_empty() {
        let room = std::future::poll_fn(|cx| duplex.lock().poll_ready(cx, data.len())).await?;
        let piece = data.split_to(room);
        let mut duplex = duplex.lock();
        match (&end, data.is_empty()) {
            (Some(trailers), true) => {
                duplex.outbound.send_last(piece, trailers.clone())?;
                return Ok(true);
            }
            _ => duplex.outbound.send(piece)?,
        }
        moved();
    }
    match end {
        Some(trailers) => duplex.lock().outbound.finish(trailers).map(|()| true),
        None => Ok(false),
    }
}

fn trailers(frame: Frame<Bytes>) -> Vec<proto::Header> {
    frame.into_trailers().map(|map| headers_to_wire(&map, false)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn batches(chunks: Vec<Option<usize>>, merge: usize) -> Vec<Batch> {
        // `None` is a moment without anything ready.
        let mut at = 0;
        let frames = stream::poll_fn(move |cx| {
            let next = chunks.get(at).copied();
            at += 1;
            match next {
                None => Poll::Ready(None),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(len)) => {
                    Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(Bytes::from(vec![at as u8; len])))))
                }
            }
        });
        let mut gatherer = Gatherer::new(StreamBody::new(frames), merge);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut batches = Vec::new();
        loop {
            if let Poll::Ready(batch) = gatherer.poll_batch(&mut cx) {
                let batch = batch.unwrap();
                let last = batch.end.is_some();
                batches.push(batch);
                if last {
                    return batches;
                }
            }
        }
    }

    #[test]
    fn rule_5_a_sender_merges_what_is_ready_and_waits_for_nothing() {
        let seen = batches(vec![Some(10), Some(20), None, Some(5), None], 1000);
        let shape: Vec<(usize, bool)> =
            seen.iter().map(|batch| (batch.data.len(), batch.end.is_some())).collect();
        assert_eq!(shape, [(30, false), (5, false), (0, true)]);
    }

    proptest! {
        #[test]
        fn rule_5_nothing_is_lost_and_no_batch_is_empty_before_the_end(
            chunks in proptest::collection::vec(proptest::option::of(0_usize..40_000), 0..20),
        ) {
            let want: Vec<u8> = chunks.iter().enumerate()
                .flat_map(|(at, len)| vec![(at + 1) as u8; len.unwrap_or(0)]).collect();
            let seen = batches(chunks, 32 << 10);
            for batch in &seen {
                prop_assert!(!batch.data.is_empty() || batch.end.is_some());
            }
            let got: Vec<u8> = seen.iter().flat_map(|batch| batch.data.iter().copied()).collect();
            prop_assert_eq!(got, want);
        }
    }
}
