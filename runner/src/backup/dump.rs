//! What a backup asks of an engine: streams to store, and what they are.

use std::pin::Pin;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::AsyncRead;

use super::error::JobError;
use super::manifest::{Content, Log};

/// What is known of the engine before it is dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Exact version.
    pub version: String,
    /// Bytes of its data, as far as it can tell.
    pub data_bytes: Option<u64>,
}

/// A stream of the engine's data.
pub struct DumpStream {
    /// Its name without endings, such as `base`; unique in the backup.
    pub name: String,
    /// Ending that tells the format, such as `tar`.
    pub format: &'static str,
    /// What it is.
    pub content: Content,
    /// The database, when it is one.
    pub database: Option<String>,
    /// The bytes.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
    /// Asked when the reader is at its end: whether that is the end of the data.
    pub ended: BoxFuture<'static, Result<(), JobError>>,
}

/// What is known when all streams have been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// The log that is needed to restore, of an engine that has one.
    pub log: Option<Log>,
    /// By the engine's clock: the moment that a restore without a log brings back.
    pub at: Timestamp,
}

/// How an engine is dumped. One is made for one backup, and used in this order.
#[async_trait]
pub trait Dump: Send {
    /// Logs in and says what will be dumped.
    async fn begin(&mut self) -> Result<About, JobError>;

    /// The next stream; none when there are no more. The one before has been read to its end.
    async fn next(&mut self) -> Result<Option<DumpStream>, JobError>;

    /// Ends. All streams have been stored.
    async fn finish(&mut self) -> Result<Dumped, JobError>;
}
