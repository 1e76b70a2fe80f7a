//! The manifest of a backup: what lies in the target, so that the target alone is enough to restore.
//!
//! It is written last: where there is no manifest there is no backup. Of an encrypted backup it is
//! authenticated by a proof beside it, as whoever can write to the bucket could else choose what is restored.

use bytes::Bytes;
use culvert_pki::stream::{BackupKey, KeyId};
use culvert_resources::{Failure, Method};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::pack::Packed;
use crate::storage::{Fault, FaultCode, Storage};
use crate::wal::Lsn;

/// Name of the manifest in the folder of a backup.
pub const NAME: &str = "manifest.json";
/// Name of the proof beside it.
pub const PROOF_NAME: &str = "manifest.json.hmac";
/// The format that is written.
pub const FORMAT: u32 = 1;
/// Longest manifest that is read: some ten thousand databases.
const LONGEST: u64 = 16 << 20;
const LONGEST_PROOF: u64 = 200;
const PURPOSE: &str = "manifest";
/// The algorithm of [`culvert_pki::stream`].
pub const ALGORITHM: &str = "culvert-stream-v1";

/// What lies in the folder of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Format of this file.
    pub format: u32,
    /// Name of the backup.
    pub backup: String,
    /// Engine.
    pub engine: String,
    /// Exact version.
    pub version: String,
    /// How it was made.
    pub method: Method,
    /// Whose data it is.
    pub service: Service,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Bytes of the engine's data.
    pub data_bytes: u64,
    /// Bytes that lie in the target, without this file.
    pub stored_bytes: u64,
    /// How the streams are compressed: `zstd`.
    pub compression: String,
    /// How the streams are encrypted, when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The streams, in the order in which they are restored.
    pub streams: Vec<Stream>,
    /// The engine's log, when points in time can be reached with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Points in time to which it can be restored; with an archive the end is where the archive ends.
    pub recoverable: Recoverable,
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// Name of the owner's user.
    pub owner: String,
    /// The spec of the data service.
    pub spec: serde_json::Value,
}

/// How streams are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// Names the key without giving it away.
    pub key_id: String,
}

impl Encryption {
    pub(super) fn with(key: KeyId) -> Self {
        Self { algorithm: ALGORITHM.to_owned(), key_id: key.to_string() }
    }
}

/// A stream and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// What it is.
    pub content: Content,
    /// The database, of a [`Content::Database`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where it lies.
    #[serde(flatten)]
    pub packed: Packed,
}

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A tar of the engine's files.
    Files,
    /// What belongs to no database, as SQL: users, grants.
    Globals,
    /// One database, in the engine's own format.
    Database,
    /// All of an engine that knows no databases, in its own format.
    Dump,
}

/// The engine's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Where it has to be replayed from.
    pub start: Lsn,
    /// Where it has to be replayed to at least.
    pub end: Lsn,
    /// The timeline of both.
    pub timeline: u32,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The engine's id of its data.
    pub system_identifier: String,
    /// Whether what comes after `end` is archived, in `wal` of the service's folder.
    pub archived: bool,
}

/// Points in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recoverable {
    /// The earliest.
    pub from: Timestamp,
    /// The latest without an archive.
    pub until: Timestamp,
}

/// A manifest as it lies in a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
}

/// Why a manifest cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The target.
    #[error(transparent)]
    Target(#[from] Fault),
    /// There is none.
    #[error("there is no backup in {path}")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// It is not the one that was asked for.
    #[error("the manifest in {path} is not the one that the backup was recorded with")]
    OtherDigest {
        /// Where it lies.
        path: String,
    },
    /// It cannot be read.
    #[error("the manifest in {path} cannot be read: {how}")]
    Malformed {
        /// Where it lies.
        path: String,
        /// In what way.
        how: String,
    },
    /// A newer program made it.
    #[error("the manifest in {path} has format {format}; this program reads up to {FORMAT}")]
    Newer {
        /// Where it lies.
        path: String,
        /// Its format.
        format: u32,
    },
    /// It is encrypted, and the key is another or none.
    #[error("the backup in {path} is encrypted with the key {needs}, and the target's Secret has {this}")]
    OtherKey {
        /// Where it lies.
        path: String,
        /// The id of its key.
        needs: String,
        /// The id of the key that is there, or `none`.
        this: String,
    },
    /// The proof beside it is missing or wrong.
    #[error("the manifest in {path} was not written by a holder of the key")]
    Forged {
        /// Where it lies.
        path: String,
    },
    /// It has no proof, nobody recorded its digest, and the target has a key.
    #[error("the backup in {path} is not encrypted, although the target has a key")]
    Unproven {
        /// Where it lies.
        path: String,
    },
}

impl ManifestError {
    /// For the status of a Restore.
    #[must_use]
    pub fn failure(&self, step: &str) -> Failure {
        let (code, hint) = match self {
            Self::Target(fault) => return fault.failure(step),
            Self::Missing { .. } => ("backup_missing", "name the folder that holds a manifest.json"),
            Self::OtherDigest { .. } | Self::Forged { .. } => {
                ("backup_forged", "find out who writes to the bucket; restore another backup")
            }
            Self::Malformed { .. } => ("backup_damaged", "restore another backup"),
            Self::Newer { .. } => ("backup_newer", "upgrade the data plane of this cluster"),
            Self::OtherKey { .. } => {
                ("key_missing", "put the organisation's encryption-key into the target's Secret")
            }
            Self::Unproven { .. } => {
                ("backup_unproven", "restore it by its Backup, or by a target without encryption-key")
            }
        };
        Failure {
            step: step.to_owned(),
            code: code.to_owned(),
            message: self.to_string(),
            hint: hint.to_owned(),
        }
    }
}

/// Writes a manifest, and so makes the backup be one.
pub async fn write(
    storage: &Storage,
    folder: &str,
    manifest: &Manifest,
    key: Option<&BackupKey>,
) -> Result<Sealed, ManifestError> {
    let malformed = |error: serde_json::Error| ManifestError::Malformed {
        path: folder.to_owned(),
        how: error.to_string(),
    };
    let bytes = Bytes::from(serde_json::to_vec_pretty(manifest).map_err(malformed)?);
    if let Some(key) = key {
        let proof = key.authenticate(PURPOSE, &bytes).to_string();
        storage.put(&format!("{folder}/{PROOF_NAME}"), proof).await?;
    }
    storage.put(&format!("{folder}/{NAME}"), bytes.clone()).await?;
    Ok(Sealed { manifest: manifest.clone(), digest: digest(&bytes) })
}

/// Reads the manifest in a folder and checks it: against the digest that was recorded, when one was, and
/// against its proof, when it is encrypted.
pub async fn read(
    storage: &Storage,
    folder: &str,
    expected_digest: Option<&str>,
) -> Result<Sealed, ManifestError> {
    let path = || folder.to_owned();
    let bytes = fetch(storage, folder).await?;
    let digest = digest(&bytes);
    if expected_digest.is_some_and(|expected| !expected.eq_ignore_ascii_case(&digest)) {
        return Err(ManifestError::OtherDigest { path: path() });
    }
    let manifest = parse(&bytes, folder)?;
    let key = storage.encryption_key()?;
    match (&manifest.encryption, key.as_deref()) {
        (Some(encryption), key) => prove(storage, folder, encryption, key, &bytes).await?,
        (None, Some(_)) if expected_digest.is_none() => return Err(ManifestError::Unproven { path: path() }),
        (None, _) => {}
    }
    Ok(Sealed { manifest, digest })
}

/// Reads the manifest in a folder, whoever wrote it: to know what it needs, not to restore it.
pub async fn read_any(storage: &Storage, folder: &str) -> Result<Sealed, ManifestError> {
    let bytes = fetch(storage, folder).await?;
    Ok(Sealed { manifest: parse(&bytes, folder)?, digest: digest(&bytes) })
}

async fn fetch(storage: &Storage, folder: &str) -> Result<Bytes, ManifestError> {
    match storage.get(&format!("{folder}/{NAME}"), LONGEST).await {
        Err(fault) if fault.code == FaultCode::NotFound => {
            Err(ManifestError::Missing { path: folder.to_owned() })
        }
        bytes => Ok(bytes?),
    }
}

fn parse(bytes: &[u8], folder: &str) -> Result<Manifest, ManifestError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let malformed = |error: serde_json::Error| ManifestError::Malformed {
        path: folder.to_owned(),
        how: error.to_string(),
    };
    let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
    if format > FORMAT {
        return Err(ManifestError::Newer { path: folder.to_owned(), format });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
    // Names of volumes become paths.
    let names = manifest.streams.iter().flat_map(|stream| &stream.packed.volumes).map(|volume| &volume.name);
    for name in names {
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            let how = format!("{name:?} is no name of an object");
            return Err(ManifestError::Malformed { path: folder.to_owned(), how });
        }
    }
    Ok(manifest)
}

async fn prove(
    storage: &Storage,
    folder: &str,
    encryption: &Encryption,
    key: Option<&BackupKey>,
    bytes: &[u8],
) -> Result<(), ManifestError> {
    let path = folder.to_owned();
    let key = match key {
        Some(key) if key.id().to_string() == encryption.key_id => key,
        other => {
            let this = other.map_or_else(|| "none".to_owned(), |key| key.id().to_string());
            return Err(ManifestError::OtherKey { path, needs: encryption.key_id.clone(), this });
        }
    };
    let proof = match storage.get(&format!("{folder}/{PROOF_NAME}"), LONGEST_PROOF).await {
        Err(fault) if fault.code == FaultCode::NotFound => return Err(ManifestError::Forged { path }),
        proof => proof?,
    };
    if key.authenticate(PURPOSE, bytes).matches(&proof) {
        Ok(())
    } else {
        Err(ManifestError::Forged { path })
    }
}

fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}
