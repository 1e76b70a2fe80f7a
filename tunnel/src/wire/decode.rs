//! Frames into messages: bytes in, events out, no I/O and no waiting.
//!
//! The payload of a `data` message leaves as slices of the bytes that came in,
//! as they come; every other message is small, bounded and collected. A `data`
//! field in a message of another shape (unknown fields around it, repeated
//! fields) is legal protobuf too: such a message is collected as the others are.

use bytes::{Buf, Bytes, BytesMut};

use super::{DataField, WireError};

/// gRPC's own prefix.
const PREFIX: usize = 5;
/// Prefix, tag and the longest varint that makes sense: what must be seen to
/// tell what a message is.
const LOOK: usize = 6;

/// What came out of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of payload, never empty.
    Data(Bytes),
    /// A whole message of another kind, without its prefix.
    Message(Bytes),
}

#[derive(Debug)]
enum State {
    /// Collecting the prefix.
    Prefix,
    /// Collecting enough of a message of this length to see what it is.
    Look { len: usize },
    /// Passing on payload.
    Data { left: usize },
    /// Collecting a message of this length.
    Whole { len: usize },
}

/// The decoder of one direction of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    field: Option<DataField>,
    limit: usize,
    state: State,
    input: Bytes,
    partial: BytesMut,
}

impl Decoder {
    /// A decoder that streams the payload of `field` and collects every other
    /// message up to `limit` bytes.
    pub(crate) fn new(field: Option<DataField>, limit: usize) -> Self {
        Self { field, limit, state: State::Prefix, input: Bytes::new(), partial: BytesMut::new() }
    }

    /// Gives more bytes; call after [`Decoder::next`] said `None`.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.input));
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        }
    }

    /// The next event, or `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, WireError> {
        loop {
            match self.state {
                State::Prefix => {
                    let Some(prefix) = self.collect(PREFIX) else { return Ok(None) };
                    let len = parse_prefix(&prefix)?;
                    self.state = self.classify_len(len)?;
                }
                State::Look { len } => {
                    let Some(state) = self.look(len)? else { return Ok(None) };
                    self.state = state;
                }
                State::Data { left: 0 } => self.state = State::Prefix,
                State::Data { left } => {
                    let piece = self.input.split_to(left.min(self.input.len()));
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Data { left: left - piece.len() };
                    return Ok(Some(Event::Data(piece)));
                }
                State::Whole { len } => {
                    let Some(message) = self.collect(len) else { return Ok(None) };
                    self.state = State::Prefix;
                    return Ok(Some(Event::Message(message)));
                }
            }
        }
    }

    /// What came in behind the last message.
    pub(crate) fn into_rest(self) -> Bytes {
        self.input
    }

    /// Bytes that came in and have not gone out.
    pub(crate) fn held(&self) -> usize {
        self.input.len() + self.partial.len()
    }

    /// Whether the bytes so far end at the end of a message.
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Prefix | State::Data { left: 0 })
            && self.partial.is_empty()
            && self.input.is_empty()
    }

    fn classify_len(&self, len: usize) -> Result<State, WireError> {
        match self.field {
            Some(_) if len > 0 => Ok(State::Look { len }),
            _ => self.whole(len),
        }
    }

    fn whole(&self, len: usize) -> Result<State, WireError> {
        if len > self.limit {
            return Err(WireError::TooLarge { size: len, limit: self.limit });
        }
        Ok(State::Whole { len })
    }

    /// Sees whether the message that begins here is one `data` field and nothing else.
    fn look(&mut self, len: usize) -> Result<Option<State>, WireError> {
        let need = len.min(LOOK);
        if self.available() < need {
            self.hold_all();
            // A tag that is not `data` needs no more than itself.
            if self.partial.first().is_none_or(|tag| Some(*tag) == self.field.map(|field| field as u8)) {
                return Ok(None);
            }
            return self.whole(len).map(Some);
        }
        let begin = self.peek();
        let payload = match begin.split_first() {
            Some((tag, rest)) if Some(*tag) == self.field.map(|field| field as u8) => varint(rest),
            _ => None,
        };
        match payload {
            Some((size, used)) if 1 + used + size == len => {
                self.skip(1 + used);
                self.give_back();
                Ok(Some(State::Data { left: size }))
            }
            _ => self.whole(len).map(Some),
        }
    }

    fn available(&self) -> usize {
        self.partial.len() + self.input.len()
    }

    fn hold_all(&mut self) {
        self.partial.extend_from_slice(&self.input);
        self.input.clear();
    }

    /// Up to the first [`LOOK`] bytes that are waiting.
    fn peek(&self) -> Vec<u8> {
        self.partial.iter().chain(self.input.iter()).take(LOOK).copied().collect()
    }

    fn skip(&mut self, count: usize) {
        let held = count.min(self.partial.len());
        self.partial.advance(held);
        self.input.advance((count - held).min(self.input.len()));
    }

    /// Bytes held that belong to payload go back before the input.
    fn give_back(&mut self) {
        if !self.partial.is_empty() {
            let mut joined = self.partial.split();
            joined.extend_from_slice(&self.input);
            self.input = joined.freeze();
        }
    }

    /// Takes exactly `len` bytes when they are there, and holds what is there otherwise.
    fn collect(&mut self, len: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.input.len() >= len {
            return Some(self.input.split_to(len));
        }
        let missing = len.saturating_sub(self.partial.len()).min(self.input.len());
        self.partial.extend_from_slice(&self.input.split_to(missing));
        (self.partial.len() >= len).then(|| self.partial.split_to(len).freeze())
    }
}

fn parse_prefix(prefix: &[u8]) -> Result<usize, WireError> {
    match *prefix {
        [0, a, b, c, d] => Ok(u32::from_be_bytes([a, b, c, d]) as usize),
        [1, ..] => Err(WireError::Compressed),
        _ => Err(WireError::Malformed),
    }
}

/// A varint of up to five bytes, below 2^32, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value: u64 = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (value <= u64::from(u32::MAX)).then_some((value as usize, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Chunk, encode};
    use super::*;
    use culvert_proto::tunnel::v1::{AnswerUp, End, Head, Header, answer_up};
    use proptest::prelude::*;
    use prost::Message;

    const LIMIT: usize = 4096;

    /// Events with neighbouring data joined.
    fn decode(pieces: &[Bytes]) -> Result<Vec<Event>, WireError> {
        let mut decoder = Decoder::new(Some(DataField::Up), LIMIT);
        let mut events: Vec<Event> = Vec::new();
        for piece in pieces {
            decoder.push(piece.clone());
            while let Some(event) = decoder.next()? {
                match (events.last_mut(), event) {
                    (Some(Event::Data(before)), Event::Data(now)) => {
                        *before = [before.as_ref(), now.as_ref()].concat().into();
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        if decoder.is_between_messages() { Ok(events) } else { Err(WireError::Truncated) }
    }

    fn split(bytes: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut at = 0;
        let mut pieces = Vec::new();
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(bytes.slice(at..cut));
            at = cut;
        }
        pieces
    }

    fn kind() -> impl Strategy<Value = AnswerUp> {
        let header = ("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(name, value)| Header { name, value: value.into() });
        let headers = proptest::collection::vec(header, 0..4);
        prop_oneof![
            (0_u32..600, headers.clone()).prop_map(|(status, headers)| answer_up::Kind::Head(Head {
                status,
                headers,
                failure: None
            })),
            proptest::collection::vec(any::<u8>(), 0..9000)
                .prop_map(|data| answer_up::Kind::Data(data.into())),
            headers.prop_map(|trailers| answer_up::Kind::End(End { trailers })),
        ]
        .prop_map(|kind| AnswerUp { kind: Some(kind) })
    }

    proptest! {
        #[test]
        fn what_prost_writes_is_read_however_it_is_cut(
            messages in proptest::collection::vec(kind(), 0..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut wire = BytesMut::new();
            let mut want: Vec<Event> = Vec::new();
            for message in &messages {
                encode::put_message(&mut wire, message);
                match (&message.kind, want.last_mut()) {
                    (Some(answer_up::Kind::Data(data)), _) if data.is_empty() => {}
                    (Some(answer_up::Kind::Data(data)), Some(Event::Data(before))) => {
                        *before = [before.as_ref(), data.as_ref()].concat().into();
                    }
                    (Some(answer_up::Kind::Data(data)), _) => want.push(Event::Data(data.clone())),
                    _ => want.push(Event::Message(message.encode_to_vec().into())),
                }
            }
            prop_assert_eq!(decode(&split(&wire.freeze(), &cuts)), Ok(want));
        }

        #[test]
        fn garbage_never_panics_and_never_holds_much(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut decoder = Decoder::new(Some(DataField::Down), LIMIT);
            for piece in split(&Bytes::from(bytes), &cuts) {
                decoder.push(piece);
                while let Ok(Some(_)) = decoder.next() {}
                prop_assert!(decoder.partial.len() <= LIMIT + 3000);
            }
        }
    }

    #[test]
    fn payload_leaves_before_its_message_is_whole() {
        let mut decoder = Decoder::new(Some(DataField::Up), LIMIT);
        let mut chunk = Chunk::data(DataField::Up, Bytes::from(vec![7; 1 << 20]));
        decoder.push(chunk.copy_to_bytes(1000));
        assert!(matches!(decoder.next(), Ok(Some(Event::Data(piece))) if piece.len() > 900));
        assert_eq!(decoder.next(), Ok(None));
    }

    #[test]
    fn a_message_above_its_limit_is_refused_before_it_comes() {
        let mut decoder = Decoder::new(Some(DataField::Up), LIMIT);
        decoder.push(Bytes::from_static(&[0, 0, 1, 0, 0, 0x0a, 1, 1, 1, 1, 1]));
        assert_eq!(decoder.next(), Err(WireError::TooLarge { size: 1 << 16, limit: LIMIT }));
    }

    #[test]
    fn data_beside_an_unknown_field_is_collected() {
        let mut body =
            AnswerUp { kind: Some(answer_up::Kind::Data(Bytes::from_static(b"hello"))) }.encode_to_vec();
        body.extend_from_slice(&[0x78, 1]); // field 15, varint 1
        let mut wire = vec![0, 0, 0, 0, body.len() as u8];
        wire.extend_from_slice(&body);
        assert_eq!(decode(&[wire.into()]), Ok(vec![Event::Message(body.into())]));
    }

    #[test]
    fn a_compressed_message_is_refused() {
        assert_eq!(decode(&[Bytes::from_static(&[1, 0, 0, 0, 0])]), Err(WireError::Compressed));
    }
}
