//! From a stream of bytes to objects in a target, and back: compress, encrypt, digest, cut into volumes.
//!
//! ```text
//! reader → [zstd] → [encrypt · cut · digest] → uploads            one thread for each bracket
//! reader ← [zstd ← decrypt] ← downloads · check of the digests
//! ```
//!
//! Every arrow is a channel of a few blocks, so the memory is the same for a megabyte and for a terabyte, and
//! a slow store makes the engine's dump wait instead of filling memory. A stream is cut into *volumes*
//! because no store takes an object of any length: S3 ends at 10,000 parts, some shares at 2 TiB.
//!
//! Mistakes a newcomer could make:
//! - To take the end of a pipe for the end of the data. A dump that dies closes its pipe as well; so the
//!   stream is finished only when [`pack`]'s `ended` says that the program ended well.
//! - To use what [`unpack`] hands out before it has returned: authentic it is, but not yet known to be all.

mod inward;
mod meter;
mod outward;
mod seal;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::storage::Fault;
use culvert_pki::stream::StreamError;

pub use inward::{check, unpack};
pub use meter::Meter;
pub use outward::{Destination, pack};

/// What blocks are handed on in.
const BLOCK: usize = 256 << 10;
/// Blocks that wait in a channel.
const BLOCKS: usize = 4;
/// Bytes of a volume at most: below 10,000 parts of 8 MiB.
pub const VOLUME_BYTES: u64 = 64 << 30;
/// Level of zstd, its own usual one.
pub const LEVEL: i32 = 3;

/// A stream that lies in a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Name of the stream, such as `base.tar.zst`; what it was encrypted for.
    pub name: String,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// The objects that it lies in, in order.
    pub volumes: Vec<Volume>,
}

impl Packed {
    /// Bytes that lie in the target.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.bytes).sum()
    }
}

/// An object that holds a piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name in the folder of the backup.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Name of a volume of a stream.
fn volume_name(stream: &str, number: usize) -> String {
    format!("{stream}.{number:03}")
}

/// Why a stream did not get into the target, or out of it.
#[derive(Debug, Error)]
pub enum PackError {
    /// The target.
    #[error(transparent)]
    Target(#[from] Fault),
    /// The engine's program, or the pipe from or to it.
    #[error("{0}")]
    Engine(String),
    /// Encryption.
    #[error("{stream}: {source}")]
    Cipher {
        /// Name of the stream.
        stream: String,
        /// What is wrong.
        #[source]
        source: StreamError,
    },
    /// What lies in the target is not what was put there.
    #[error("{object} is damaged: {how}")]
    Damaged {
        /// Which object.
        object: String,
        /// In what way.
        how: String,
    },
    /// What was unpacked could not be used.
    #[error("{0}")]
    Sink(std::io::Error),
    /// Somebody asked for it to end.
    #[error("cancelled")]
    Cancelled,
    /// A thread ended before its time.
    #[error("a thread of the stream ended early")]
    Broken,
}

#[cfg(test)]
mod tests;
