//! Messages into frames. Payload is never copied: a frame is a few bytes of
//! prefix, the payload as it came, and a few bytes of tail.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

/// gRPC's own prefix: a compression flag and a length of four bytes.
const PREFIX: usize = 5;
/// Most bytes that a `data` message adds to its payload: prefix, tag, varint.
pub(crate) const DATA_OVERHEAD: usize = PREFIX + 1 + 5;

/// The tag of the `data` field of the message that a direction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DataField {
    /// `AnswerDown.data`, field 1.
    Down = 1 << 3 | 2,
    /// `AnswerUp.data`, field 2.
    Up = 2 << 3 | 2,
}

/// What is handed to h2 as one piece: prefix, payload, tail.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    prefix: [u8; DATA_OVERHEAD],
    at: u8,
    len: u8,
    body: Bytes,
    tail: Bytes,
}

impl Chunk {
    /// Bytes as they are.
    pub(crate) fn raw(body: Bytes) -> Self {
        Self { body, ..Self::default() }
    }

    /// One `data` message. `payload` must be below 4 GiB; a frame is far below.
    pub(crate) fn data(field: DataField, payload: Bytes) -> Self {
        Self::data_then(field, payload, Bytes::new())
    }

    /// One `data` message, then the bytes of others.
    pub(crate) fn data_then(field: DataField, payload: Bytes, tail: Bytes) -> Self {
        let mut chunk = Self { body: payload, tail, ..Self::default() };
        let space = chunk.prefix.len();
        let mut rest = chunk.prefix.as_mut_slice();
        put_data_prefix(&mut rest, field, chunk.body.len());
        chunk.len = (space - rest.len()) as u8;
        chunk
    }

    fn prefix(&self) -> &[u8] {
        self.prefix.get(usize::from(self.at)..usize::from(self.len)).unwrap_or_default()
    }
}

fn put_data_prefix(into: &mut impl BufMut, field: DataField, payload: usize) {
    let message = 1 + encoded_len_varint(payload as u64) + payload;
    into.put_u8(0);
    into.put_u32(message as u32);
    into.put_u8(field as u8);
    encode_varint(payload as u64, into);
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.prefix().len() + self.body.len() + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        match (self.prefix(), &self.body) {
            ([], body) if body.is_empty() => &self.tail,
            ([], body) => body,
            (prefix, _) => prefix,
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let parts = [self.prefix(), &self.body, &self.tail];
        let mut filled = 0;
        for (slot, part) in into.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let prefix = count.min(self.prefix().len());
        self.at += prefix as u8;
        let body = (count - prefix).min(self.body.len());
        self.body.advance(body);
        self.tail.advance(count - prefix - body);
    }
}

/// A message with its gRPC prefix, added to `into`.
pub(crate) fn put_message(into: &mut BytesMut, message: &impl Message) {
    let len = message.encoded_len();
    into.reserve(PREFIX + len);
    into.put_u8(0);
    into.put_u32(len as u32);
    message.encode_raw(into);
}

/// A message with its gRPC prefix.
pub(crate) fn message(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.encoded_len());
    put_message(&mut bytes, message);
    bytes.freeze()
}

/// A `data` message copied into `into`, for payload too small to go by itself.
pub(crate) fn put_data(into: &mut BytesMut, field: DataField, payload: &[u8]) {
    into.reserve(DATA_OVERHEAD + payload.len());
    put_data_prefix(into, field, payload.len());
    into.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use culvert_proto::tunnel::v1::{AnswerDown, AnswerUp, answer_down, answer_up};
    use proptest::prelude::*;

    fn flat(mut chunk: Chunk) -> Bytes {
        chunk.copy_to_bytes(chunk.remaining())
    }

    proptest! {
        #[test]
        fn a_data_chunk_is_what_prost_would_write(payload in proptest::collection::vec(any::<u8>(), 0..20_000), step in 200_usize..2000) {
            let payload = Bytes::from(payload);
            let up = AnswerUp { kind: Some(answer_up::Kind::Data(payload.clone())) };
            let down = AnswerDown { kind: Some(answer_down::Kind::Data(payload.clone())) };
            prop_assert_eq!(flat(Chunk::data(DataField::Up, payload.clone())), message(&up));
            prop_assert_eq!(flat(Chunk::data(DataField::Down, payload.clone())), message(&down));
            let mut copied = BytesMut::new();
            put_data(&mut copied, DataField::Up, &payload);
            prop_assert_eq!(copied.freeze(), message(&up));
            // Taken in steps and by vectors it is the same, the prefix byte by byte.
            let mut chunk = Chunk::data_then(DataField::Up, payload, Bytes::from_static(b"tail"));
            let mut seen = Vec::new();
            while chunk.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = chunk.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert_eq!(all.len(), chunk.remaining());
                prop_assert_eq!(chunk.chunk()[0], all[0]);
                let take = if seen.len() < 20 { 1 } else { step.min(all.len()) };
                seen.extend_from_slice(&all[..take]);
                chunk.advance(take);
            }
            let mut want = message(&up).to_vec();
            want.extend_from_slice(b"tail");
            prop_assert_eq!(seen, want);
        }
    }
}
