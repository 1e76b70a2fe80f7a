//! A file of the log as an object: its name, and how it is packed.
//!
//! zstd with a skippable frame in front that says when the file was last written; then encrypted, where there
//! is a key.

use std::io;

use culvert_pki::stream::{BackupKey, Opener, Sealer, StreamError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::WalName;
use crate::pack::LEVEL;
use crate::storage::Fault;

/// PostgreSQL's largest segment, and some room for what cannot be compressed.
pub(super) const LONGEST: u64 = (1 << 30) + (8 << 20);
/// The first of zstd's skippable frames (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2A, 0x4D, 0x18];

/// Why a file of the log did not get into the archive, or out of it.
#[derive(Debug, Error)]
pub enum WalError {
    /// The target.
    #[error(transparent)]
    Target(#[from] Fault),
    /// A local file.
    #[error("{what}: {source}")]
    File {
        /// What was done with which file.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another file lies under this name.
    #[error(
        "{name} lies in the archive already, with other content: another database writes into the same folder"
    )]
    OtherContent {
        /// Its name.
        name: String,
    },
    /// What lies in the archive is damaged.
    #[error("{name} in the archive is damaged: {how}")]
    Damaged {
        /// Its name.
        name: String,
        /// In what way.
        how: String,
    },
    /// It is encrypted with another key.
    #[error("{name} in the archive cannot be opened: {source}")]
    Cipher {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: StreamError,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Request(String),
}

impl WalError {
    pub(super) fn file(what: impl Into<String>, source: io::Error) -> Self {
        Self::File { what: what.into(), source }
    }
}

/// What is told of a file in front of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// When it was last written.
    pub(super) written: Timestamp,
}

/// Path of a file below the folder of the log.
pub(super) fn path(folder: &str, name: &WalName, encrypted: bool) -> String {
    let below = match name {
        WalName::Segment(segment) | WalName::Partial(segment) | WalName::Backup(segment, _) => {
            format!("{:08X}{:08X}/", segment.timeline, segment.high)
        }
        WalName::History(_) => String::new(),
    };
    format!("{folder}/{below}{name}.zst{}", if encrypted { ".enc" } else { "" })
}

/// The file that an object holds, when it is one of ours.
pub(super) fn name_of(object: &str) -> Option<WalName> {
    let name = object.strip_suffix(".enc").unwrap_or(object);
    name.strip_suffix(".zst")?.parse().ok()
}

pub(super) fn encode(
    name: &WalName,
    content: &[u8],
    about: &About,
    key: Option<&BackupKey>,
) -> Result<Vec<u8>, WalError> {
    let damaged = |how: String| WalError::Damaged { name: name.to_string(), how };
    let json = serde_json::to_vec(about).map_err(|error| damaged(error.to_string()))?;
    let length = u32::try_from(json.len()).map_err(|error| damaged(error.to_string()))?;
    let mut plain = SKIPPABLE.to_vec();
    plain.extend_from_slice(&length.to_le_bytes());
    plain.extend_from_slice(&json);
    let mut encoder = zstd::Encoder::new(plain, LEVEL).map_err(|error| damaged(error.to_string()))?;
    encoder.include_checksum(true).map_err(|error| damaged(error.to_string()))?;
    io::Write::write_all(&mut encoder, content).map_err(|error| damaged(error.to_string()))?;
    let plain = encoder.finish().map_err(|error| damaged(error.to_string()))?;
    let Some(key) = key else { return Ok(plain) };
    let cipher = |source| WalError::Cipher { name: name.to_string(), source };
    let mut sealed = Vec::with_capacity(plain.len() + 4096);
    let mut sealer = Sealer::begin(key, name.to_string().as_bytes(), &mut sealed).map_err(cipher)?;
    sealer.update(&plain, &mut sealed).map_err(cipher)?;
    sealer.finish(&mut sealed).map_err(cipher)?;
    Ok(sealed)
}

/// The content and what is told of it; `key` when the object is encrypted.
pub(super) fn decode(
    name: &WalName,
    object: &[u8],
    key: Option<&BackupKey>,
) -> Result<(Vec<u8>, Option<About>), WalError> {
    let cipher = |source| WalError::Cipher { name: name.to_string(), source };
    let mut opened = Vec::new();
    let plain = match key {
        Some(key) => {
            let mut opener = Opener::begin(key, name.to_string().as_bytes());
            opener.update(object, &mut opened).map_err(cipher)?;
            opener.finish(&mut opened).map_err(cipher)?;
            opened.as_slice()
        }
        None => object,
    };
    let damaged = |error: io::Error| WalError::Damaged { name: name.to_string(), how: error.to_string() };
    let mut content = Vec::new();
    let decoder = zstd::Decoder::new(plain).map_err(damaged)?;
    let mut limited = io::Read::take(decoder, LONGEST);
    io::Read::read_to_end(&mut limited, &mut content).map_err(damaged)?;
    Ok((content, about(plain)))
}

fn about(plain: &[u8]) -> Option<About> {
    let (length, rest) = plain.strip_prefix(&SKIPPABLE)?.split_first_chunk::<4>()?;
    let json = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> WalName {
        "000000010000000000000002".parse().unwrap()
    }

    #[test]
    fn a_file_comes_back_with_its_time() {
        let about = About { written: "2026-11-25T03:00:00Z".parse().unwrap() };
        let key = BackupKey::generate().unwrap();
        for key in [Some(&key), None] {
            let object = encode(&name(), b"content", &about, key).unwrap();
            assert_eq!(decode(&name(), &object, key).unwrap(), (b"content".to_vec(), Some(about.clone())));
            let cut = &object[..object.len() - 1];
            assert!(decode(&name(), cut, key).is_err());
        }
    }

    #[test]
    fn a_file_under_another_name_does_not_open() {
        let (about, key) = (About { written: Timestamp::UNIX_EPOCH }, BackupKey::generate().unwrap());
        let object = encode(&name(), b"content", &about, Some(&key)).unwrap();
        let other = "000000010000000000000003".parse().unwrap();
        assert!(matches!(decode(&other, &object, Some(&key)), Err(WalError::Cipher { .. })));
    }

    #[test]
    fn objects_are_known_by_their_names() {
        let path = path("s/wal", &name(), true);
        assert_eq!(path, "s/wal/0000000100000000/000000010000000000000002.zst.enc");
        assert_eq!(name_of("000000010000000000000002.zst.enc"), Some(name()));
        assert_eq!(name_of("00000002.history.zst"), Some(WalName::History(2)));
        for foreign in ["000000010000000000000002", "notes.zst", "x.enc", ""] {
            assert_eq!(name_of(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // It must not panic; most of it is refused.
            let _ = decode(&name(), &bytes, None);
            prop_assert!(decode(&name(), &bytes, Some(&BackupKey::generate().unwrap())).is_err());
        }
    }
}
