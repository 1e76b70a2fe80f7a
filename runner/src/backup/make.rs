//! Makes a backup: streams of an engine into a target, the manifest last.

use std::sync::Arc;

use culvert_pki::stream::BackupKey;
use culvert_resources::Method;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::dump::{About, Dump, DumpStream, Dumped};
use super::error::JobError;
use super::manifest::{
    self, Encryption, FORMAT, Manifest, ManifestError, Recoverable, Sealed, Service, Stream,
};
use crate::pack::{Destination, Meter, PackError, VOLUME_BYTES, pack};
use crate::storage::Storage;

/// What a backup is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its folder below the target's prefix.
    pub folder: String,
    /// Engine.
    pub engine: String,
    /// How.
    pub method: Method,
    /// Whose data it is.
    pub service: Service,
    /// When it began.
    pub started_at: Timestamp,
}

/// Makes a backup. What an attempt before left in the folder is removed, unless it is whole: then it is the
/// backup.
pub async fn make(
    wanted: &Wanted,
    storage: &Storage,
    dump: &mut dyn Dump,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Sealed, JobError> {
    let key = storage.encryption_key()?;
    if let Some(whole) = finished_before(storage, &wanted.folder).await? {
        return Ok(whole);
    }
    super::remove::leftovers(storage, &wanted.folder).await?;
    meter.step("connecting");
    let about = dump.begin().await?;
    meter.expect(about.data_bytes.unwrap_or_default());
    let made = store(wanted, storage, dump, key.as_ref(), meter, cancel).await;
    let streams = match made {
        Ok(streams) => streams,
        Err(error) => {
            give_up(storage, &wanted.folder).await;
            return Err(error);
        }
    };
    meter.step("writing the manifest");
    let dumped = dump.finish().await?;
    if cancel.is_cancelled() {
        give_up(storage, &wanted.folder).await;
        return Err(JobError::Cancelled);
    }
    let manifest = describe(wanted, &about, streams, dumped, key.as_deref());
    Ok(manifest::write(storage, &wanted.folder, &manifest, key.as_deref()).await?)
}

async fn finished_before(storage: &Storage, folder: &str) -> Result<Option<Sealed>, JobError> {
    match manifest::read(storage, folder, None).await {
        Ok(whole) => Ok(Some(whole)),
        Err(ManifestError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn store(
    wanted: &Wanted,
    storage: &Storage,
    dump: &mut dyn Dump,
    key: Option<&Arc<BackupKey>>,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Vec<Stream>, JobError> {
    let mut streams = Vec::new();
    while let Some(stream) = dump.next().await? {
        meter.step("copying data");
        let DumpStream { name, format, content, database, reader, ended } = stream;
        let name = stream_name(&name, format, key.is_some());
        let to = Destination {
            storage,
            folder: &wanted.folder,
            name: &name,
            key: key.cloned(),
            volume_bytes: VOLUME_BYTES,
        };
        // The engine's own words are worth more than that its pipe ended.
        let ended = async { ended.await.map_err(|error| PackError::Engine(error.to_string())) };
        let packed = pack(reader, ended, to, meter, cancel).await?;
        streams.push(Stream { content, database, packed });
    }
    Ok(streams)
}

fn stream_name(name: &str, format: &str, encrypted: bool) -> String {
    format!("{name}.{format}.zst{}", if encrypted { ".enc" } else { "" })
}

/// Nobody can be told when this fails, and the next attempt, or the deletion, does it again.
async fn give_up(storage: &Storage, folder: &str) {
    if let Err(error) = super::remove::leftovers(storage, folder).await {
        tracing::warn!(%error, folder, "what was stored of a backup that failed stays until the next attempt");
    }
}

fn describe(
    wanted: &Wanted,
    about: &About,
    streams: Vec<Stream>,
    dumped: Dumped,
    key: Option<&BackupKey>,
) -> Manifest {
    Manifest {
        format: FORMAT,
        backup: wanted.name.clone(),
        engine: wanted.engine.clone(),
        version: about.version.clone(),
        method: wanted.method,
        service: wanted.service.clone(),
        started_at: wanted.started_at,
        ended_at: dumped.at,
        data_bytes: streams.iter().map(|stream| stream.packed.plain_bytes).sum(),
        stored_bytes: streams.iter().map(|stream| stream.packed.stored_bytes()).sum(),
        compression: "zstd".to_owned(),
        encryption: key.map(|key| Encryption::with(key.id())),
        streams,
        log: dumped.log,
        recoverable: Recoverable { from: dumped.at, until: dumped.at },
    }
}
