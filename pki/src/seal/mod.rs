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

/// A fresh key of 32 bytes, for what is encrypted elsewhere.
///
/// # Errors
/// [`NoRandomness`].
pub fn fresh_key() -> Result<Zeroizing<[u8; 32]>, NoRandomness> {
    Ok(Zeroizing::new(random::bytes()?))
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ORG: Uuid = Uuid::from_u128(7);
    const PLACE: Place<'static> = Place { table: "authorities", column: "key", row: b"row-1" };

    fn key() -> DataKey {
        DataKey::generate(ORG, 1).unwrap()
    }

    #[test]
    fn a_record_opens_where_it_was_sealed() {
        let key = key();
        let sealed = key.seal(PLACE, b"secret").unwrap();
        assert_eq!(key.open(PLACE, &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(sealed.len(), HEADER_LEN + b"secret".len() + TAG_LEN);
        assert_eq!(Header::read(&sealed), Ok(Header { org: ORG, version: 1 }));
    }

    #[test]
    fn a_record_does_not_open_elsewhere() {
        let key = key();
        let sealed = key.seal(PLACE, b"secret").unwrap();
        for place in [
            Place { table: "sessions", ..PLACE },
            Place { column: "certificate", ..PLACE },
            Place { row: b"row-2", ..PLACE },
            // The same letters, cut in other places.
            Place { table: "authoritiesk", column: "ey", row: b"row-1" },
            Place { table: "authorities", column: "keyr", row: b"ow-1" },
        ] {
            assert_eq!(key.open(place, &sealed), Err(SealError::Forged), "{place:?}");
        }
    }

    #[test]
    fn a_record_says_which_key_it_needs() {
        let sealed = key().seal(PLACE, b"secret").unwrap();
        let needs = SealError::OtherKey { org: ORG, version: 1 };
        for other in [DataKey::generate(ORG, 2).unwrap(), DataKey::generate(INSTALLATION, 1).unwrap()] {
            assert_eq!(other.open(PLACE, &sealed), Err(needs.clone()));
        }
        // Right by its header, wrong by its secret.
        assert_eq!(key().open(PLACE, &sealed), Err(SealError::Forged));
    }

    #[test]
    fn a_header_rewritten_to_fit_another_key_does_not_help() {
        let (first, second) =
            (key(), DataKey { header: Header { org: ORG, version: 2 }, secret: key().secret.clone() });
        let mut sealed = first.seal(PLACE, b"secret").unwrap();
        sealed[21] = 2;
        assert_eq!(second.open(PLACE, &sealed), Err(SealError::Forged));
    }

    #[test]
    fn unknown_formats_and_short_records_are_told_apart_from_forged_ones() {
        let key = key();
        let sealed = key.seal(PLACE, b"").unwrap();
        for at in [0, 1] {
            let mut changed = sealed.clone();
            changed[at] = 9;
            assert_eq!(key.open(PLACE, &changed), Err(SealError::Format));
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open(PLACE, &sealed[..length]), Err(SealError::Format), "cut at {length}");
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let key = key();
        assert_ne!(key.seal(PLACE, b"secret"), key.seal(PLACE, b"secret"));
    }

    /// Made by another program from the description above, and written down so
    /// that a change of the format cannot pass unseen: records that an older
    /// version sealed must stay readable.
    #[test]
    fn a_record_of_format_one_still_opens() {
        let key = DataKey { header: Header { org: ORG, version: 3 }, secret: Zeroizing::new([0x5a; 32]) };
        let sealed = data_encoding::HEXLOWER.decode(FORMAT_ONE.as_bytes()).unwrap();
        assert_eq!(key.open(PLACE, &sealed).unwrap().as_slice(), b"a secret of format one");
    }

    const FORMAT_ONE: &str = "01010000000000000000000000000000000700000003000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f25486fe81a8951536ce745135297ec2b0a59eb37a64573d8ce1707461c9892fd653fe24c47ba";

    proptest! {
        #[test]
        fn every_record_opens_as_it_was(
            plaintext in vec(any::<u8>(), 0..2000), table in ".{0,20}", column in ".{0,20}", row in vec(any::<u8>(), 0..40),
        ) {
            let key = key();
            let place = Place { table: &table, column: &column, row: &row };
            let sealed = key.seal(place, &plaintext).unwrap();
            let opened = key.open(place, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
        }

        #[test]
        fn a_changed_bit_is_noticed(at in any::<usize>(), bit in 0..8_u32) {
            let key = key();
            let mut sealed = key.seal(PLACE, b"secret").unwrap();
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(key.open(PLACE, &sealed).is_err());
        }

        #[test]
        fn garbage_is_refused_calmly(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(key().open(PLACE, &bytes).is_err());
        }
    }
}
