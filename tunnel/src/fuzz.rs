//! What is read off the wire, as functions of bytes alone, for `fuzz/` and nobody
//! else. Each does what the product does with such bytes and says what it saw, so
//! that a fuzz target can hold it against another way of seeing the same.

use bytes::{Bytes, BytesMut};
use culvert_proto::tunnel::v1 as proto;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;

use crate::wire::{DataField, Decoder, Event, headers_from_wire, headers_to_wire};
use crate::{DialError, Refusal, WireError};

/// Largest message that the decoder collects here.
pub const LIMIT: usize = 4096;

/// What a decoder made of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Payload, all of it.
    pub payload: Vec<u8>,
    /// Other messages, in their order.
    pub messages: Vec<Bytes>,
    /// What ended it.
    pub error: Option<WireError>,
    /// Most bytes that it held at once.
    pub held: usize,
}

/// Decodes a stream that arrives in pieces of this length. `down` is the direction.
pub fn decode(bytes: &[u8], piece: usize, down: bool) -> Decoded {
    let field = if down { DataField::Down } else { DataField::Up };
    let mut decoder = Decoder::new(Some(field), LIMIT);
    let mut seen = Decoded::default();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(Event::Data(data))) => seen.payload.extend_from_slice(&data),
                Ok(Some(Event::Message(message))) => seen.messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
        seen.held = seen.held.max(decoder.held());
    }
    seen
}

/// Reads an `Open` as an agent does; whether it is one.
#[must_use]
pub fn open(bytes: &[u8]) -> bool {
    let Ok(message) = proto::Open::decode(bytes) else { return false };
    crate::link::understood(message)
}

/// Reads the head of an answer as a controller does: its headers, and the same
/// after they went over the wire once more.
#[must_use]
pub fn head(bytes: &[u8]) -> Option<(HeaderMap, Option<HeaderMap>)> {
    let head = proto::Head::decode(bytes).ok()?;
    let headers = headers_from_wire(head.headers).ok()?;
    let again = headers_from_wire(headers_to_wire(&headers, true)).ok();
    Some((headers, again))
}

/// Reads trailers, one `name: value` a line, as an agent does that was refused.
#[must_use]
pub fn refusal(bytes: &[u8]) -> Option<(Refusal, Option<Refusal>)> {
    let mut trailers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(halves.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            trailers.append(name, value);
        }
    }
    let refusal = Refusal::from_trailers(&trailers)?;
    let again = Refusal::from_trailers(&refusal.trailers());
    Some((refusal, again))
}

/// Reads a proxy's answer to CONNECT, as far as its head.
pub fn connect_answer(bytes: &[u8]) -> Option<Result<(), DialError>> {
    crate::dial::connect_answer(bytes)
}

/// Reads whatever either end may say on any stream; how many messages it was.
#[must_use]
pub fn messages(bytes: &[u8]) -> usize {
    let bytes = BytesMut::from(bytes).freeze();
    usize::from(proto::ControlUp::decode(bytes.clone()).is_ok())
        + usize::from(proto::ControlDown::decode(bytes.clone()).is_ok())
        + usize::from(proto::AnswerUp::decode(bytes.clone()).is_ok())
        + usize::from(proto::AnswerDown::decode(bytes).is_ok())
}
