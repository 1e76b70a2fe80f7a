//! Encrypts what is compressed, where there is a key, and cuts it into parts and volumes with their digests.

use std::sync::Arc;

use bytes::Bytes;
use culvert_pki::stream::{BackupKey, Sealer, StreamError};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{Volume, volume_name};
use crate::storage::PART_BYTES;

/// What the uploader gets.
#[derive(Debug)]
pub(super) enum Piece {
    /// A part of the current volume, of full length.
    Part(Bytes),
    /// The last part of the current volume, and what the volume is then.
    Last(Bytes, Volume),
}

/// Encrypts and cuts.
pub(super) struct Cutter {
    stream: String,
    sealer: Option<Sealer>,
    ready: Vec<u8>,
    digest: Sha256,
    bytes: u64,
    number: usize,
    volume_bytes: u64,
}

impl Cutter {
    pub(super) fn new(
        stream: &str,
        key: Option<&Arc<BackupKey>>,
        volume_bytes: u64,
    ) -> Result<Self, StreamError> {
        let mut ready = buffer();
        let sealer = key.map(|key| Sealer::begin(key, stream.as_bytes(), &mut ready)).transpose()?;
        let (digest, stream) = (Sha256::new(), stream.to_owned());
        Ok(Self { stream, sealer, ready, digest, bytes: 0, number: 0, volume_bytes })
    }

    /// Takes compressed bytes.
    pub(super) fn update(&mut self, compressed: &[u8]) -> Result<(), StreamError> {
        match &mut self.sealer {
            Some(sealer) => sealer.update(compressed, &mut self.ready),
            None => {
                self.ready.extend_from_slice(compressed);
                Ok(())
            }
        }
    }

    /// A part of full length, when there is one and more to come after it.
    pub(super) fn take(&mut self) -> Option<Piece> {
        if self.ready.len() <= PART_BYTES {
            return None;
        }
        let mut rest = buffer();
        rest.extend(self.ready.drain(PART_BYTES..));
        let part = Bytes::from(std::mem::replace(&mut self.ready, rest));
        self.count(&part);
        let full = self.bytes + PART_BYTES as u64 > self.volume_bytes;
        Some(if full { Piece::Last(part, self.volume()) } else { Piece::Part(part) })
    }

    /// The end of the stream: ask [`Cutter::take`] afterwards, and then for the [`Cutter::last`].
    pub(super) fn finish(&mut self) -> Result<(), StreamError> {
        self.sealer.take().map_or(Ok(()), |sealer| sealer.finish(&mut self.ready))
    }

    /// The last piece of the stream.
    pub(super) fn last(&mut self) -> Piece {
        let part = Bytes::from(std::mem::take(&mut self.ready));
        self.count(&part);
        Piece::Last(part, self.volume())
    }

    fn count(&mut self, part: &[u8]) {
        self.digest.update(part);
        self.bytes += part.len() as u64;
    }

    fn volume(&mut self) -> Volume {
        let digest = std::mem::take(&mut self.digest).finalize();
        let name = volume_name(&self.stream, self.number);
        self.number += 1;
        Volume { name, bytes: std::mem::take(&mut self.bytes), sha256: HEXLOWER.encode(&digest) }
    }
}

/// Room for a part and for what comes over its end in one go.
fn buffer() -> Vec<u8> {
    Vec::with_capacity(PART_BYTES + (512 << 10))
}
