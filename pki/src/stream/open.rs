//! Decrypts a stream, chunk by chunk.

use aws_lc_rs::aead::Aad;

use super::{ALGORITHM, BackupKey, Chunks, HEADER_LEN, KeyId, LOG2_CHUNK, MAGIC, StreamError, TAG_LEN};

/// Decrypts a stream. What comes out is appended to a buffer of the caller's.
pub struct Opener<'k> {
    key: &'k BackupKey,
    context: Vec<u8>,
    pending: Vec<u8>,
    state: State,
}

enum State {
    Header,
    Chunks { chunks: Chunks, sealed_length: usize },
}

impl<'k> Opener<'k> {
    /// Begins. The context is that with which the stream was sealed.
    #[must_use]
    pub fn begin(key: &'k BackupKey, context: &[u8]) -> Self {
        Self { key, context: context.to_vec(), pending: Vec::new(), state: State::Header }
    }

    /// Takes ciphertext and appends to `out` what is authentic.
    pub fn update(&mut self, mut sealed: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
        while !sealed.is_empty() {
            if self.pending.len() == self.wanted() {
                self.advance(out)?;
            }
            let room = (self.wanted() - self.pending.len()).min(sealed.len());
            let (now, later) = sealed.split_at(room);
            self.pending.extend_from_slice(now);
            sealed = later;
        }
        Ok(())
    }

    /// Ends: appends the last chunk, and says whether it was the last.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        if matches!(self.state, State::Header) && self.pending.len() == HEADER_LEN {
            self.advance(out)?;
        }
        match &mut self.state {
            State::Header => Err(StreamError::Truncated { chunk: 0 }),
            State::Chunks { chunks, .. } => open_last(chunks, &mut self.pending, out),
        }
    }

    /// Bytes that have to be there before anything can be done.
    fn wanted(&self) -> usize {
        match &self.state {
            State::Header => HEADER_LEN,
            State::Chunks { sealed_length, .. } => *sealed_length,
        }
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        match &mut self.state {
            State::Header => self.state = read_header(self.key, &self.context, &self.pending)?,
            State::Chunks { chunks, .. } => {
                let number = open(chunks, false, &mut self.pending, out)?;
                number.map_err(|chunk| StreamError::Forged { chunk })?;
            }
        }
        self.pending.clear();
        Ok(())
    }
}

fn read_header(key: &BackupKey, context: &[u8], bytes: &[u8]) -> Result<State, StreamError> {
    let header: &[u8; HEADER_LEN] = bytes.try_into().map_err(|_| StreamError::Format)?;
    let (magic, rest) = header.split_first_chunk::<4>().ok_or(StreamError::Format)?;
    let (&[algorithm, log2], rest) = rest.split_first_chunk().ok_or(StreamError::Format)?;
    let (id, _) = rest.split_first_chunk().ok_or(StreamError::Format)?;
    if magic != MAGIC || algorithm != ALGORITHM || !LOG2_CHUNK.contains(&log2) {
        return Err(StreamError::Format);
    }
    let needs = KeyId::from_bytes(*id);
    if needs != key.id() {
        return Err(StreamError::OtherKey { needs, this: key.id() });
    }
    Ok(State::Chunks { chunks: Chunks::derive(key, header, context)?, sealed_length: (1 << log2) + TAG_LEN })
}

/// A chunk that does not open as the last but would as one in the middle has lost what followed it. The
/// counter is not moved by the first try, so that the second has the same number.
fn open_last(chunks: &mut Chunks, sealed: &mut [u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
    if sealed.len() < TAG_LEN {
        return Err(StreamError::Truncated { chunk: chunks.next });
    }
    let mut again = sealed.to_vec();
    let Err(chunk) = open(chunks, true, sealed, out)? else { return Ok(()) };
    chunks.next = chunk;
    match open(chunks, false, &mut again, &mut Vec::new())? {
        Ok(_) => Err(StreamError::Truncated { chunk: chunks.next }),
        Err(_) => Err(StreamError::Forged { chunk }),
    }
}

/// Opens one chunk in place. The inner result is the number of the chunk, whether it opened or not.
fn open(
    chunks: &mut Chunks,
    last: bool,
    sealed: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<Result<u32, u32>, StreamError> {
    let (nonce, number) = chunks.nonce(last)?;
    match chunks.cipher.open_in_place(nonce, Aad::empty(), sealed) {
        Ok(plaintext) => {
            out.extend_from_slice(plaintext);
            Ok(Ok(number))
        }
        Err(_) => Ok(Err(number)),
    }
}
