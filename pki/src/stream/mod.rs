//! Encryption of streams of any length: how backups lie in a bucket.
//!
//! This is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: *Online Authenticated-Encryption
//! and its Nonce-Reuse Misuse-Resistance*, 2015) over AES-256-GCM, as age and Tink have it. A stream is cut
//! into chunks of equal length, and each is encrypted on its own, so that neither side ever holds more than
//! one of them:
//!
//! ```text
//! header: "CVS1" | algorithm 1 | log2 of the chunk length 1 | key id 8 | salt 32
//! chunk:  ciphertext | tag 16         all as long as the header says; the last may be shorter
//! nonce:  prefix 7 | number of the chunk 4 | 1 for the last chunk, else 0
//! ```
//!
//! Key and prefix come out of HKDF over the salt, the rest of the header, and a *context* that the caller
//! gives, such as the object's name. So no two objects share a key; a chunk of another object, in another
//! place, or given twice, does not open; a header that was changed opens nothing; an object under another
//! name does not open; and what was cut off is missed, as the last chunk says that it is the last.
//!
//! What a newcomer could get wrong: plaintext comes out before the end has been seen. Each byte of it is
//! authentic, but only [`Opener::finish`] says that it is all.

mod key;
mod open;
mod seal;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::random::NoRandomness;

pub use key::{BackupKey, KeyFormatError, KeyId, Mac};
pub use open::Opener;
pub use seal::Sealer;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 4 + 1 + 1 + KeyId::LEN + SALT_LEN;
/// Bytes by which each chunk grows.
pub const TAG_LEN: usize = 16;

const MAGIC: &[u8; 4] = b"CVS1";
const ALGORITHM: u8 = 1;
const SALT_LEN: usize = 32;
const PREFIX_LEN: usize = 7;
/// Chunks are between 64 KiB and 1 MiB.
const LOG2_CHUNK: std::ops::RangeInclusive<u8> = 16..=20;
/// 256 KiB: the tags are 1/16384 of the stream, and a chunk fits into the second cache of a core.
const DEFAULT_LOG2_CHUNK: u8 = 18;

/// Why a stream was not encrypted or does not open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    /// It does not begin as a stream of a known format.
    #[error("not an encrypted stream of a known format")]
    Format,
    /// It was encrypted with another key.
    #[error("encrypted with the key {needs}, and this is {this}")]
    OtherKey {
        /// The key that it was encrypted with.
        needs: KeyId,
        /// The key that was tried.
        this: KeyId,
    },
    /// A chunk was changed, moved, repeated or comes from elsewhere.
    #[error("chunk {chunk} was changed, moved or belongs elsewhere")]
    Forged {
        /// Which, from 0.
        chunk: u32,
    },
    /// The end is missing.
    #[error("the end is missing: cut off after chunk {chunk}")]
    Truncated {
        /// Whole chunks that were seen.
        chunk: u32,
    },
    /// Longer than the counter reaches: 2³² chunks.
    #[error("too long to be encrypted as one stream")]
    TooLong,
    /// The cipher refused.
    #[error("the stream could not be encrypted")]
    Cipher,
    /// No random salt.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// The cipher of one stream, which numbers its chunks.
struct Chunks {
    cipher: LessSafeKey,
    prefix: [u8; PREFIX_LEN],
    next: u32,
}

impl Chunks {
    fn derive(key: &BackupKey, header: &[u8; HEADER_LEN], context: &[u8]) -> Result<Self, StreamError> {
        let (fixed, salt) = header.split_at(HEADER_LEN - SALT_LEN);
        let mut derived = Zeroizing::new([0_u8; 32 + PREFIX_LEN]);
        Hkdf::<Sha256>::new(Some(salt), key.secret())
            .expand_multi_info(&[b"culvert-stream-v1", fixed, context], derived.as_mut_slice())
            .map_err(|_| StreamError::Cipher)?;
        let (secret, prefix) = derived.split_first_chunk::<32>().ok_or(StreamError::Cipher)?;
        let unbound = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| StreamError::Cipher)?;
        let prefix = prefix.try_into().map_err(|_| StreamError::Cipher)?;
        Ok(Self { cipher: LessSafeKey::new(unbound), prefix, next: 0 })
    }

    /// The nonce of the next chunk, and its number. Never the same twice.
    fn nonce(&mut self, last: bool) -> Result<(Nonce, u32), StreamError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(StreamError::TooLong)?;
        let mut nonce = [0_u8; 12];
        let parts = self.prefix.iter().copied().chain(number.to_be_bytes()).chain([u8::from(last)]);
        for (to, from) in nonce.iter_mut().zip(parts) {
            *to = from;
        }
        Ok((Nonce::assume_unique_for_key(nonce), number))
    }
}

#[cfg(test)]
mod tests;
