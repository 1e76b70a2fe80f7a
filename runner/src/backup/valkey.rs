//! How Valkey is dumped: the snapshot that a new replica would get, straight from the engine's child process.
//!
//! Nothing is written to the engine's volume, so a full one does not stand in the way of a backup.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::client::TlsStream;

use super::dump::{About, Dump, DumpStream, Dumped};
use super::error::JobError;
use super::manifest::Content;
use crate::valkey::link::secured;
use crate::valkey::wire::{Wire, WireError};
use crate::valkey::{Info, REPLICATION};

/// Bytes between the engine and what compresses.
const PIPE: usize = 256 << 10;

/// Where an engine is, and how to log in.
pub struct Place {
    /// Host; the name that its certificate has to prove.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The certificate that its own leads to.
    pub ca: PathBuf,
    /// Password of the user that replicates.
    pub password: SecretString,
}

/// A snapshot of an engine.
pub struct Snapshot {
    place: Place,
    wire: Option<Wire<TlsStream<TcpStream>>>,
    at: Arc<Mutex<Option<Timestamp>>>,
    begun: bool,
}

impl Snapshot {
    /// Of the engine at a place.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, wire: None, at: Arc::default(), begun: false }
    }
}

#[async_trait]
impl Dump for Snapshot {
    async fn begin(&mut self) -> Result<About, JobError> {
        let place = &self.place;
        let connected = secured((&place.host, place.port), &place.host, &place.ca).await;
        let stream = connected.map_err(|error| JobError::engine("engine_unreachable", error.to_string()))?;
        let mut wire = Wire::log_in(stream, REPLICATION, &place.password).await.map_err(login)?;
        let info = Info::read(&wire.ask("its state", &["INFO"]).await.map_err(failed)?);
        self.wire = Some(wire);
        Ok(About { version: info.version().to_owned(), data_bytes: info.number("used_memory_dataset") })
    }

    async fn next(&mut self) -> Result<Option<DumpStream>, JobError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(None);
        }
        let mut wire = self.wire.take().ok_or_else(not_begun)?;
        let time = wire.ask("the time", &["TIME"]).await.map_err(failed)?;
        let mark = wire.begin().await.map_err(failed)?;
        // All that was acknowledged before this second is in the snapshot.
        *self.at.lock().await = time.parse().ok().and_then(|second| Timestamp::from_second(second).ok());
        let (reader, mut writer) = tokio::io::duplex(PIPE);
        let copy = tokio::spawn(async move { wire.copy(&mark, &mut writer).await });
        let ended = async move {
            let copied = copy.await.map_err(|error| JobError::engine("dump_failed", error.to_string()))?;
            copied.map_err(failed)
        };
        Ok(Some(DumpStream {
            name: "snapshot".to_owned(),
            format: "rdb",
            content: Content::Dump,
            database: None,
            reader: Box::pin(reader),
            ended: Box::pin(ended),
        }))
    }

    async fn finish(&mut self) -> Result<Dumped, JobError> {
        let at = self.at.lock().await.take().ok_or_else(not_begun)?;
        Ok(Dumped { log: None, at })
    }
}

fn not_begun() -> JobError {
    JobError::engine("dump_failed", "a dump was continued that had not begun, or the engine told no time")
}

fn failed(error: WireError) -> JobError {
    JobError::engine("dump_failed", error.to_string())
}

fn login(error: WireError) -> JobError {
    match error {
        WireError::Refused { .. } => JobError::engine_stuck(
            "engine_login",
            error.to_string(),
            "wait until rotated credentials are in force, or restore the service's Secret",
        ),
        other => JobError::engine("engine_unreachable", other.to_string()),
    }
}
