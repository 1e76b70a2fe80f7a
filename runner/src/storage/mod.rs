//! Where backups go: one way to write, read, list and delete, whatever the kind of the target.
//!
//! S3, Azure Blob Storage and Google Cloud Storage are spoken by `object_store`; a file share is a mounted
//! folder that is written with a rename at the end and `fsync`. What is ours here: whom to trust and how to
//! get out ([`http`]), credentials that are read when they are used ([`credentials`]), faults that say who
//! can mend them ([`fault`]), and uploads of any length in a fixed memory that leave nothing behind
//! ([`upload`]).
//!
//! Mistakes a newcomer could make:
//! - to take "not found" for "deleted": a bucket that is missing says the same to a HEAD request;
//! - to trust a listing to be complete in the middle of an error: it ends with the error, not before it;
//! - to delete what was not put by us: everything ours has a name that [`crate::backup`] or [`crate::wal`]
//!   knows, and nothing else is touched.

mod credentials;
mod fault;
mod http;
mod kinds;
mod read;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_pki::stream::BackupKey;
use culvert_resources::job::TargetConfig;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt as _, PutMode, RetryConfig};

pub use fault::{Fault, FaultCode};
pub use read::{Reader, fault_of};
pub use upload::{PART_BYTES, PARTS_AT_ONCE, Upload};

use credentials::Folder;
use http::Skew;

/// How long a request is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    retries: usize,
    total: Duration,
}

impl Patience {
    /// For a check: it shall tell quickly what is wrong.
    pub const CHECK: Self = Self { retries: 1, total: Duration::from_secs(15) };
    /// For work that has to go on: a store that restarts is waited for. Below the five minutes after which a
    /// signature is too old.
    pub const WORK: Self = Self { retries: 12, total: Duration::from_secs(180) };

    fn config(self) -> RetryConfig {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(20),
            base: 2.0,
        };
        RetryConfig { backoff, max_retries: self.retries, retry_timeout: self.total }
    }
}

/// An object in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the target's prefix.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

impl Entry {
    /// The last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// A backup target that is open. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    name: Arc<str>,
    objects: Arc<dyn ObjectStore>,
    /// Where an upload has an id that outlives us.
    multipart: Option<Arc<dyn MultipartStore>>,
    /// Where the target is a folder.
    share: Option<PathBuf>,
    prefix: Path,
    folder: Folder,
    skew: Skew,
}

impl Storage {
    /// Opens a target. Nothing is sent yet.
    pub fn open(config: &TargetConfig, patience: Patience) -> Result<Self, Fault> {
        kinds::open(config, patience)
    }

    /// The target as a person knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key under which backups are encrypted; none when the Secret has none. Read now.
    pub fn encryption_key(&self) -> Result<Option<Arc<BackupKey>>, Fault> {
        Ok(self.folder.encryption_key()?.map(Arc::new))
    }

    /// How far the store's clock is ahead of ours, in milliseconds; none before the first answer, or when the
    /// target has no clock.
    #[must_use]
    pub fn skew_ms(&self) -> Option<i64> {
        self.skew.millis()
    }

    /// Writes a small object whole. Says whether the store keeps old versions, where it tells.
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Option<bool>, Fault> {
        let put = self.objects.put(&self.at(path), bytes.into().into()).await;
        let put = put.map_err(|error| self.fault(&error))?;
        Ok(put.version.map(|version| version != "null"))
    }

    /// Writes a small object whole; [`FaultCode::Exists`] when there is one. Stores that cannot refuse are
    /// asked beforehand.
    pub async fn put_new(&self, path: &str, bytes: impl Into<Bytes>) -> Result<(), Fault> {
        if self.entry(path).await?.is_some() {
            return Err(Fault::new(FaultCode::Exists, &self.name, path));
        }
        let (at, bytes) = (self.at(path), bytes.into());
        match self.objects.put_opts(&at, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotImplemented { .. }) => self.put(path, bytes).await.map(|_| ()),
            Err(error) if error.to_string().contains("NotImplemented") => {
                self.put(path, bytes).await.map(|_| ())
            }
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Reads a small object whole; refuses one of more than `limit` bytes.
    pub async fn get(&self, path: &str, limit: u64) -> Result<Bytes, Fault> {
        let got = self.objects.get(&self.at(path)).await.map_err(|error| self.fault(&error))?;
        if got.meta.size > limit {
            let detail = format!("{path} has {} bytes, more than {limit}", got.meta.size);
            return Err(Fault::new(FaultCode::Unexpected, &self.name, detail));
        }
        got.bytes().await.map_err(|error| self.fault(&error))
    }

    /// Reads an object of any length. A connection that breaks is taken up again where it broke.
    pub async fn read(&self, path: &str) -> Result<Reader, Fault> {
        let got = self.objects.get(&self.at(path)).await.map_err(|error| self.fault(&error))?;
        Ok(Reader::new(got, self.clone()))
    }

    /// What lies at a path, when something does.
    pub async fn entry(&self, path: &str) -> Result<Option<Entry>, Fault> {
        match self.objects.head(&self.at(path)).await {
            Ok(meta) => Ok(Some(self.describe(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Everything below a folder, in no order.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Entry, Fault>> {
        let storage = self.clone();
        let objects = self.objects.list(Some(&self.at(folder)));
        objects
            .map(move |meta| meta.map(|meta| storage.describe(&meta)).map_err(|error| storage.fault(&error)))
            .boxed()
    }

    /// The folders directly below a folder, by name.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, Fault> {
        let listed = self.objects.list_with_delimiter(Some(&self.at(folder))).await;
        let listed = listed.map_err(|error| self.fault(&error))?;
        Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Deletes an object; that it is not there is no error.
    pub async fn delete(&self, path: &str) -> Result<(), Fault> {
        match self.objects.delete(&self.at(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Begins an object of any length.
    #[must_use]
    pub fn upload(&self, path: &str) -> Upload {
        Upload::new(self.clone(), path)
    }

    /// Removes what uploads left behind that were killed, below a folder.
    pub async fn abandon_uploads(&self, folder: &str) -> Result<(), Fault> {
        let journals: Vec<Entry> = self
            .list(folder)
            .try_filter(|entry| std::future::ready(upload::is_journal(&entry.path)))
            .try_collect()
            .await?;
        for journal in journals {
            upload::abandon(self, &journal.path).await?;
        }
        upload::remove_staged(self, folder)
    }

    fn at(&self, path: &str) -> Path {
        self.prefix.parts().chain(Path::from(path).parts()).collect()
    }

    fn describe(&self, meta: &object_store::ObjectMeta) -> Entry {
        let path = meta.location.prefix_match(&self.prefix).map(|parts| parts.collect::<Path>());
        let modified = Timestamp::from_millisecond(meta.last_modified.timestamp_millis());
        Entry {
            path: path.unwrap_or_else(|| meta.location.clone()).to_string(),
            bytes: meta.size,
            modified: modified.unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    fn fault(&self, error: &object_store::Error) -> Fault {
        Fault::from_store(error, &self.name, self.skew_ms())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
