//! Bytes of the tunnel: gRPC messages framed and unframed without copying payload.

mod decode;
mod encode;
mod head;
mod id;

pub(crate) use decode::{Decoder, Event};
pub(crate) use encode::{Chunk, DATA_OVERHEAD, DataField, message, put_data, put_message};
pub(crate) use head::{headers_from_wire, headers_to_wire};
pub(crate) use id::CallId;

/// What the other end sent is not the tunnel's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A compressed message; compression was not offered.
    #[error("a compressed message")]
    Compressed,
    /// A message above its limit.
    #[error("a message of {size} bytes, of which {limit} are allowed")]
    TooLarge {
        /// As announced.
        size: usize,
        /// As allowed.
        limit: usize,
    },
    /// A message that is not what the contract says.
    #[error("a malformed message")]
    Malformed,
    /// The stream ended inside a message, or before its `end`.
    #[error("the stream ended too early")]
    Truncated,
    /// A message that may not come here.
    #[error("a message out of order")]
    OutOfOrder,
}
