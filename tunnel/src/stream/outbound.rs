//! The sending direction of a call: takes payload as HTTP/2 credit allows.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue};

use crate::BodyError;
use crate::wire::{Chunk, DATA_OVERHEAD, DataField, message, put_data, put_message};

/// Payload up to this is copied beside its neighbours into one small frame.
const SMALL: usize = 16 << 10;

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Receives `AnswerUp`, sends `AnswerDown`.
    Controller,
    /// Receives `AnswerDown`, sends `AnswerUp`.
    Agent,
}

impl Side {
    pub(crate) fn receives(self) -> DataField {
        match self {
            Self::Controller => DataField::Up,
            Self::Agent => DataField::Down,
        }
    }

    pub(crate) fn sends(self) -> DataField {
        match self {
            Self::Controller => DataField::Down,
            Self::Agent => DataField::Up,
        }
    }

    fn end(self, trailers: Vec<proto::Header>) -> Bytes {
        let end = proto::End { trailers };
        match self {
            Self::Controller => {
                message(&proto::AnswerDown { kind: Some(proto::answer_down::Kind::End(end)) })
            }
            Self::Agent => message(&proto::AnswerUp { kind: Some(proto::answer_up::Kind::End(end)) }),
        }
    }
}

/// The sending direction.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// `None` when the other end reset it before it was accepted.
    stream: Option<SendStream<Chunk>>,
    side: Side,
    /// Largest payload of one message: a frame less what surrounds it.
    piece: usize,
    ended: bool,
}

impl Outbound {
    pub(crate) fn new(stream: Option<SendStream<Chunk>>, side: Side, max_frame: u32) -> Self {
        let piece = (max_frame as usize).saturating_sub(DATA_OVERHEAD).max(1);
        Self { stream, side, piece, ended: false }
    }

    /// For a direction that was ended as it began; only a reset can follow.
    pub(crate) fn already_ended(stream: Option<SendStream<Chunk>>, side: Side) -> Self {
        Self { stream, side, piece: 1, ended: true }
    }

    /// How many bytes of payload, of `want`, may be sent now.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, BodyError>> {
        let want = want.min(self.piece);
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(BodyError::Aborted)) };
        stream.reserve_capacity(want + DATA_OVERHEAD);
        loop {
            let free = stream.capacity();
            if free > DATA_OVERHEAD {
                return Poll::Ready(Ok(want.min(free - DATA_OVERHEAD)));
            }
            match std::task::ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(BodyError::from_h2(&error))),
                None => return Poll::Ready(Err(self.cause(cx))),
            }
        }
    }

    /// Why nothing can be sent.
    fn cause(&mut self, cx: &mut Context<'_>) -> BodyError {
        match self.poll_aborted(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => BodyError::Aborted,
        }
    }

    /// Ready when the other end gave the call up or the connection broke.
    pub(crate) fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(BodyError::Aborted) };
        match std::task::ready!(stream.poll_reset(cx)) {
            Ok(_) => Poll::Ready(BodyError::Aborted),
            Err(error) => Poll::Ready(BodyError::from_h2(&error)),
        }
    }

    /// Sends what [`Outbound::poll_ready`] allowed.
    pub(crate) fn send(&mut self, payload: Bytes) -> Result<(), BodyError> {
        if payload.is_empty() {
            return Ok(());
        }
        self.put(Chunk::data(self.side.sends(), payload), false)
    }

    /// Ends this direction.
    pub(crate) fn finish(&mut self, trailers: Vec<proto::Header>) -> Result<(), BodyError> {
        let end = Chunk::raw(self.side.end(trailers));
        self.put(end, self.side == Side::Agent)?;
        self.close()
    }

    /// Sends the last payload, which [`Outbound::poll_ready`] allowed, and ends
    /// this direction, all in one frame.
    pub(crate) fn send_last(
        &mut self,
        payload: Bytes,
        trailers: Vec<proto::Header>,
    ) -> Result<(), BodyError> {
        let end = self.side.end(trailers);
        let chunk = Chunk::data_then(self.side.sends(), payload, end);
        self.put(chunk, self.side == Side::Agent)?;
        self.close()
    }

    /// Sends the head of an answer, with all that is known already.
    pub(crate) fn send_head(
        &mut self,
        head: proto::Head,
        payload: Bytes,
        end: Option<Vec<proto::Header>>,
    ) -> Result<(), BodyError> {
        let mut first = BytesMut::new();
        put_message(&mut first, &proto::AnswerUp { kind: Some(proto::answer_up::Kind::Head(head)) });
        let ended = end.is_some();
        let tail = end.map(|trailers| self.side.end(trailers)).unwrap_or_default();
        if payload.len() <= SMALL {
            if !payload.is_empty() {
                put_data(&mut first, self.side.sends(), &payload);
            }
            first.extend_from_slice(&tail);
            self.put(Chunk::raw(first.freeze()), ended)?;
        } else {
            self.put(Chunk::raw(first.freeze()), false)?;
            self.put(Chunk::data_then(self.side.sends(), payload, tail), ended)?;
        }
        self.ended = ended;
        Ok(())
    }

    fn put(&mut self, chunk: Chunk, last: bool) -> Result<(), BodyError> {
        let Some(stream) = &mut self.stream else { return Err(BodyError::Aborted) };
        stream.send_data(chunk, last).map_err(|error| {
            // h2 tells a stream that was reset and one that was ended here alike.
            if error.is_io() { BodyError::Lost } else { BodyError::Aborted }
        })
    }

    fn close(&mut self) -> Result<(), BodyError> {
        self.ended = true;
        if self.side == Side::Controller
            && let Some(stream) = &mut self.stream
        {
            stream.send_trailers(ok_trailers()).map_err(|_| BodyError::Aborted)?;
        }
        Ok(())
    }

    /// Gives the whole call up, both directions.
    pub(crate) fn abort(&mut self, reason: Reason) {
        self.ended = true;
        if let Some(stream) = &mut self.stream {
            stream.send_reset(reason);
        }
    }

    /// Whether this direction was ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }
}

/// The trailers of a stream that went well.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}
