//! Encrypts a stream, chunk by chunk.

use aws_lc_rs::aead::Aad;
use zeroize::Zeroizing;

use super::{
    ALGORITHM, BackupKey, Chunks, DEFAULT_LOG2_CHUNK, HEADER_LEN, MAGIC, SALT_LEN, StreamError, TAG_LEN,
};
use crate::random;

/// Encrypts a stream. What comes out is appended to a buffer of the caller's.
pub struct Sealer {
    pub(super) chunks: Chunks,
    length: usize,
    pending: Zeroizing<Vec<u8>>,
}

impl Sealer {
    /// Begins a stream and appends its header to `out`. It opens only with the same `context`.
    pub fn begin(key: &BackupKey, context: &[u8], out: &mut Vec<u8>) -> Result<Self, StreamError> {
        Self::begin_with(key, context, random::bytes()?, DEFAULT_LOG2_CHUNK, out)
    }

    pub(super) fn begin_with(
        key: &BackupKey,
        context: &[u8],
        salt: [u8; SALT_LEN],
        log2: u8,
        out: &mut Vec<u8>,
    ) -> Result<Self, StreamError> {
        let header = header(key, salt, log2);
        let chunks = Chunks::derive(key, &header, context)?;
        out.extend_from_slice(&header);
        let length = 1 << log2;
        Ok(Self { chunks, length, pending: Zeroizing::new(Vec::with_capacity(length)) })
    }

    /// Takes plaintext and appends to `out` what is ready. A full chunk waits for the next byte, as only then
    /// it is known not to be the last.
    pub fn update(&mut self, mut plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
        while !plaintext.is_empty() {
            if self.pending.len() == self.length {
                self.flush(false, out)?;
            }
            let room = (self.length - self.pending.len()).min(plaintext.len());
            let (now, later) = plaintext.split_at(room);
            self.pending.extend_from_slice(now);
            plaintext = later;
        }
        Ok(())
    }

    /// Ends the stream and appends its last chunk.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        self.flush(true, out)
    }

    fn flush(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), StreamError> {
        let (nonce, _) = self.chunks.nonce(last)?;
        let tag = self
            .chunks
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut self.pending)
            .map_err(|_| StreamError::Cipher)?;
        out.reserve(self.pending.len() + TAG_LEN);
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(tag.as_ref());
        self.pending.clear();
        Ok(())
    }
}

fn header(key: &BackupKey, salt: [u8; SALT_LEN], log2: u8) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let parts = MAGIC
        .iter()
        .chain(&[ALGORITHM, log2])
        .chain(key.id().as_bytes())
        .chain(&salt)
        .copied()
        .collect::<Vec<_>>();
    header.copy_from_slice(&parts);
    header
}
