//! Sealing: how secrets lie in the database.
//!
//! Each organisation has a [`DataKey`], and the installation has one. A data key
//! is stored wrapped by a [`KekProvider`]. A record is encrypted with AES-256-GCM
//! under a key of its own, derived from the data key and a random salt, and bound
//! to its [`Place`]: copied to another row, column or table it does not open.
//!
//! ```text
//! format 1 | algorithm 1 | organisation 16 | key version 4 | salt 32 | ciphertext | tag 16
//! ```
//!
//! Key and nonce both come out of HKDF over the 32-byte salt, so no pair of them
//! is ever used twice and there is no counter to keep.

mod kek;

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::random::{self, NoRandomness};

pub use kek::{FileKek, KekError, KekFileError, KekProvider};

/// The owner of secrets that belong to no organisation, such as the root's key.
pub const INSTALLATION: Uuid = Uuid::nil();

const FORMAT: u8 = 1;
const AES_256_GCM: u8 = 1;
const HEADER_LEN: usize = 1 + 1 + 16 + 4 + SALT_LEN;
const SALT_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// Why a sealed record was not opened or made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// Shorter than any record, or of a format or algorithm not known here.
    #[error("not a sealed record of a known format")]
    Format,
    /// Sealed with another key; [`Header::read`] says which.
    #[error("sealed with version {version} of the key of {org}")]
    OtherKey {
        /// The organisation of the key.
        org: Uuid,
        /// The version of the key.
        version: u32,
    },
    /// Changed, or taken from another place.
    #[error("the record was changed or belongs elsewhere")]
    Forged,
    /// Too long to encrypt.
    #[error("the record could not be encrypted")]
    Encrypt,
    /// No random salt.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The column's name.
    pub column: &'a str,
    /// The row's primary key, in the one form the caller always uses.
    pub row: &'a [u8],
}

/// Which key a record needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The organisation of the data key, or [`INSTALLATION`].
    pub org: Uuid,
    /// The version of the data key.
    pub version: u32,
}

impl Header {
    /// Reads the beginning of a sealed record; nothing of it is proven until the
    /// record opens.
    pub fn read(sealed: &[u8]) -> Result<Self, SealError> {
        let (header, _) = split(sealed)?;
        let (&[format, algorithm], rest) = header.split_first_chunk().ok_or(SealError::Format)?;
        let (org, rest) = rest.split_first_chunk().ok_or(SealError::Format)?;
        let (version, _) = rest.split_first_chunk().ok_or(SealError::Format)?;
        if format != FORMAT || algorithm != AES_256_GCM {
            return Err(SealError::Format);
        }
        Ok(Self { org: Uuid::from_bytes(*org), version: u32::from_be_bytes(*version) })
    }

    fn bytes(self, salt: &[u8; SALT_LEN]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&[FORMAT, AES_256_GCM]);
        bytes.extend_from_slice(self.org.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(salt);
        bytes
    }
}

/// The key under which the secrets of one organisation are sealed.
pub struct DataKey {
    header: Header,
    secret: Zeroizing<[u8; 32]>,
}

impl DataKey {
    /// A fresh key. `version` counts the keys of `org` from 1.
    pub fn generate(org: Uuid, version: u32) -> Result<Self, NoRandomness> {
        Ok(Self { header: Header { org, version }, secret: Zeroizing::new(random::bytes()?) })
    }

    /// The organisation and version, as in the records it seals.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// Seals `plaintext` for `place`.
    pub fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        encrypt(&self.secret, self.header, place, plaintext)
    }

    /// Opens what was sealed with this key for this place.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Header { org, version } = Header::read(sealed)?;
        if self.header != (Header { org, version }) {
            return Err(SealError::OtherKey { org, version });
        }
        decrypt(&self.secret, place, sealed)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("header", &self.header).finish_non_exhaustive()
    }
}

fn split(sealed: &[u8]) -> Result<(&[u8], &[u8]), SealError> {
    let (header, ciphertext) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Format)?;
    if ciphertext.len() < TAG_LEN { Err(SealError::Format) } else { Ok((header, ciphertext)) }
}

fn encrypt(
    secret: &[u8; 32],
    header: Header,
    place: Place<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let salt: [u8; SALT_LEN] = random::bytes()?;
    let mut sealed = header.bytes(&salt);
    let aad = associated(&sealed, place);
    let (cipher, nonce) = record_key(secret, &salt)?;
    let payload = Payload { msg: plaintext, aad: &aad };
    let ciphertext = cipher.encrypt(&nonce, payload).map_err(|_| SealError::Encrypt)?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

fn decrypt(secret: &[u8; 32], place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (header, ciphertext) = split(sealed)?;
    let salt = header.last_chunk::<SALT_LEN>().ok_or(SealError::Format)?;
    let (cipher, nonce) = record_key(secret, salt)?;
    let payload = Payload { msg: ciphertext, aad: &associated(header, place) };
    cipher.decrypt(&nonce, payload).map(Zeroizing::new).map_err(|_| SealError::Forged)
}

/// Header and place, each part with its length, so that no two places read alike.
fn associated(header: &[u8], place: Place<'_>) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for part in [place.table.as_bytes(), place.column.as_bytes(), place.row] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn record_key(secret: &[u8; 32], salt: &[u8; SALT_LEN]) -> Result<(Aes256Gcm, Nonce<NonceLen>), SealError> {
    let mut derived = Zeroizing::new([0_u8; 32 + 12]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(b"culvert-seal-v1", derived.as_mut_slice())
        .map_err(|_| SealError::Encrypt)?;
    let (key, nonce) = derived.split_first_chunk::<32>().ok_or(SealError::Encrypt)?;
    let nonce: [u8; 12] = nonce.try_into().map_err(|_| SealError::Encrypt)?;
    Ok((Aes256Gcm::new(key.into()), nonce.into()))
}

type NonceLen = aes_gcm::aead::consts::U12;
