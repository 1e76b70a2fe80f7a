//! The receiving direction of a call: decodes, merges small frames, and gives
//! HTTP/2 credit back only for bytes that were taken.
//!
//! A frame inside h2 costs some two hundred bytes beside its payload, and its
//! slice keeps the whole read buffer alive. So frames that nobody takes are
//! pulled out of h2 and merged by [`Inbound::compact`], without giving credit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;
use prost::Message as _;

use super::outbound::Side;
use crate::BodyError;
use crate::wire::{Decoder, Event, WireError, headers_from_wire};

/// Pieces at least this long are passed on as they are; copying them costs more
/// than what a merged frame saves.
const LARGE: usize = 8 << 10;

/// Where the frames come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The answer to our request has not begun yet.
    Response(ResponseFuture),
    /// It has.
    Stream(RecvStream),
    /// Nothing more is wanted or to be had.
    Closed,
}

/// The receiving direction.
#[derive(Debug)]
pub(crate) struct Inbound {
    source: Source,
    side: Side,
    decoder: Decoder,
    ready: VecDeque<Bytes>,
    ready_len: usize,
    /// Bytes of frames taken from h2 for which no credit was given yet.
    held: usize,
    /// Payload handed out since the begin.
    taken: u64,
    end: Option<proto::End>,
    error: Option<BodyError>,
    waker: Option<Waker>,
}

/// A decoded piece.
enum Piece {
    Data(Bytes),
    Head(proto::Head),
    End,
}

impl Inbound {
    /// The direction that carries what `side` receives.
    pub(crate) fn new(source: Source, side: Side, max_message: usize) -> Self {
        Self {
            source,
            side,
            decoder: Decoder::new(Some(side.receives()), max_message),
            ready: VecDeque::new(),
            ready_len: 0,
            held: 0,
            taken: 0,
            end: None,
            error: None,
            waker: None,
        }
    }

    /// The same, with what was received already; its credit was given.
    pub(crate) fn after(mut self, received: Bytes) -> Self {
        self.decoder.push(received);
        self
    }

    /// The head of an answer, which comes first.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<proto::Head, BodyError>> {
        let head = match self.poll_piece(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(Some(Piece::Head(head)))) => Ok(head),
            Poll::Ready(Ok(_)) => Err(self.fail(WireError::OutOfOrder.into())),
            Poll::Ready(Err(error)) => Err(error),
        };
        self.give_credit();
        Poll::Ready(head)
    }

    /// The next payload, small frames merged up to `merge` bytes; `None` at the end.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        merge: usize,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let first = match self.poll_payload(cx) {
            Poll::Ready(Some(Ok(data))) => data,
            other => return other,
        };
        let data = if first.len() >= LARGE.min(merge) { first } else { self.merge(first, cx, merge) };
        self.taken += data.len() as u64;
        self.give_credit();
        Poll::Ready(Some(Ok(data)))
    }

    /// Adds to `first` what is there already.
    fn merge(&mut self, first: Bytes, cx: &mut Context<'_>, merge: usize) -> Bytes {
        let mut merged: Option<BytesMut> = None;
        let mut len = first.len();
        while len < merge {
            match self.poll_payload(cx) {
                Poll::Ready(Some(Ok(next))) if next.len() >= LARGE => {
                    self.put_back(next);
                    break;
                }
                Poll::Ready(Some(Ok(next))) => {
                    let into = merged.get_or_insert_with(|| {
                        let mut into = BytesMut::with_capacity(merge.min(LARGE));
                        into.extend_from_slice(&first);
                        into
                    });
                    into.extend_from_slice(&next);
                    len = into.len();
                }
                _ => break,
            }
        }
        merged.map_or(first, BytesMut::freeze)
    }

    fn put_back(&mut self, data: Bytes) {
        self.ready_len += data.len();
        self.ready.push_front(data);
    }

    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(data) = self.ready.pop_front() {
            self.ready_len -= data.len();
            return Poll::Ready(Some(Ok(data)));
        }
        match self.poll_piece(cx) {
            Poll::Pending => {
                if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    self.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Poll::Ready(Ok(Some(Piece::Data(data)))) => Poll::Ready(Some(Ok(data))),
            Poll::Ready(Ok(Some(Piece::End) | None)) => {
                self.give_credit();
                Poll::Ready(None)
            }
            Poll::Ready(Ok(Some(Piece::Head(_)))) => {
                Poll::Ready(Some(Err(self.fail(WireError::OutOfOrder.into()))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, BodyError>> {
        if self.end.is_some() {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = &self.error {
            return Poll::Ready(Err(error.clone()));
        }
        loop {
            match self.next_piece() {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            }
            if let Err(error) = std::task::ready!(self.poll_frame(cx)) {
                return Poll::Ready(Err(self.fail(error)));
            }
        }
    }

    /// One more frame into the decoder.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            match &mut self.source {
                Source::Response(response) => match std::task::ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => self.source = begin(response)?,
                    Err(error) => return Poll::Ready(Err(BodyError::from_h2(&error))),
                },
                Source::Stream(stream) => {
                    return Poll::Ready(match std::task::ready!(stream.poll_data(cx)) {
                        Some(Ok(bytes)) => {
                            self.held += bytes.len();
                            self.decoder.push(bytes);
                            Ok(())
                        }
                        Some(Err(error)) => Err(BodyError::from_h2(&error)),
                        // A direction ends with its `end` message; a stream that just stops was cut.
                        None if self.decoder.is_between_messages() => Err(BodyError::Aborted),
                        None => Err(WireError::Truncated.into()),
                    });
                }
                Source::Closed => return Poll::Ready(Err(BodyError::Aborted)),
            }
        }
    }

    /// What the decoder has; messages this version does not know are passed over.
    fn next_piece(&mut self) -> Result<Option<Piece>, BodyError> {
        while let Some(event) = self.decoder.next()? {
            let message = match event {
                Event::Data(data) => return Ok(Some(Piece::Data(data))),
                Event::Message(message) => message,
            };
            match self.side.parse(message)? {
                Received::Unknown => {}
                Received::Data(data) => return Ok(Some(Piece::Data(data))),
                Received::Head(head) => return Ok(Some(Piece::Head(head))),
                Received::End(end) => {
                    self.end = Some(end);
                    return Ok(Some(Piece::End));
                }
            }
        }
        Ok(None)
    }

    /// Ends this direction with an error; the first one stays.
    pub(crate) fn fail(&mut self, error: BodyError) -> BodyError {
        let error = self.error.get_or_insert(error).clone();
        self.close();
        error
    }

    /// Wants nothing more: frees what is held and lets the credit go.
    pub(crate) fn close(&mut self) {
        self.ready.clear();
        self.ready_len = 0;
        self.decoder = Decoder::new(Some(self.side.receives()), 0);
        self.give_credit();
        self.source = Source::Closed;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Gives credit for every byte that does not wait here any more.
    fn give_credit(&mut self) {
        let waiting = (self.ready_len + self.decoder.held()).min(self.held);
        let done = self.held - waiting;
        if done > 0
            && let Source::Stream(stream) = &mut self.source
        {
            // It fails only for a stream that is gone, and its credit with it.
            let _ = stream.flow_control().release_capacity(done);
        }
        self.held = waiting;
    }

    /// Reads to the end and drops it all; ready when the other end has ended.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(_)) = std::task::ready!(self.poll_payload(cx)) {
            self.give_credit();
        }
        // The stream's own end may come after the message: dropped before it, the stream
        // is reset, and h2 then throws away what still waits to be sent.
        if let Source::Stream(stream) = &mut self.source {
            while let Some(Ok(rest)) = std::task::ready!(stream.poll_data(cx)) {
                // It fails only for a stream that is gone, and its credit with it.
                let _ = stream.flow_control().release_capacity(rest.len());
            }
        }
        Poll::Ready(())
    }

    /// Pulls waiting frames out of h2 and merges them, without giving credit.
    pub(crate) fn compact(&mut self) {
        if self.end.is_some() || self.error.is_some() || matches!(self.source, Source::Closed) {
            return;
        }
        // The reader's own waker, so that it still hears of what comes later.
        let waker = self.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let mut cx = Context::from_waker(&waker);
        let mut merged = BytesMut::new();
        while let Poll::Ready(Ok(Some(Piece::Data(data)))) = self.poll_piece(&mut cx) {
            self.ready_len += data.len();
            if data.len() >= LARGE {
                self.flush(&mut merged);
                self.ready.push_back(data);
            } else {
                merged.extend_from_slice(&data);
            }
        }
        self.flush(&mut merged);
    }

    fn flush(&mut self, merged: &mut BytesMut) {
        if !merged.is_empty() {
            self.ready.push_back(merged.split().freeze());
        }
    }

    /// Bytes that wait to be taken: here and inside h2.
    pub(crate) fn waiting(&mut self) -> usize {
        match &mut self.source {
            // What h2 counts as used is everything without credit, ours included.
            Source::Stream(stream) => stream.flow_control().used_capacity().max(self.held),
            _ => self.ready_len,
        }
    }

    /// Payload taken since the begin.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the `end` was read and everything before it taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.end.is_some() && self.ready.is_empty()
    }

    /// Whether the `end` was read, with bytes before it that may still wait here.
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// Trailers, once, after the end.
    pub(crate) fn take_trailers(&mut self) -> Option<Result<HeaderMap, BodyError>> {
        let trailers = std::mem::take(&mut self.end.as_mut()?.trailers);
        (!trailers.is_empty()).then(|| headers_from_wire(trailers).map_err(BodyError::from))
    }
}

/// The controller accepted our stream, or ended it at once.
fn begin(response: http::Response<RecvStream>) -> Result<Source, BodyError> {
    let ok = response.status() == http::StatusCode::OK
        && response.headers().get("grpc-status").is_none_or(|status| status == "0");
    if ok { Ok(Source::Stream(response.into_body())) } else { Err(BodyError::Aborted) }
}

/// A message received, of either direction.
pub(crate) enum Received {
    Head(proto::Head),
    Data(Bytes),
    End(proto::End),
    Unknown,
}

impl Side {
    fn parse(self, message: Bytes) -> Result<Received, WireError> {
        let malformed = |_: prost::DecodeError| WireError::Malformed;
        Ok(match self {
            Self::Controller => match proto::AnswerUp::decode(message).map_err(malformed)?.kind {
                Some(proto::answer_up::Kind::Head(head)) => Received::Head(head),
                Some(proto::answer_up::Kind::Data(data)) if !data.is_empty() => Received::Data(data),
                Some(proto::answer_up::Kind::End(end)) => Received::End(end),
                _ => Received::Unknown,
            },
            Self::Agent => match proto::AnswerDown::decode(message).map_err(malformed)?.kind {
                Some(proto::answer_down::Kind::Data(data)) if !data.is_empty() => Received::Data(data),
                Some(proto::answer_down::Kind::End(end)) => Received::End(end),
                _ => Received::Unknown,
            },
        })
    }
}
