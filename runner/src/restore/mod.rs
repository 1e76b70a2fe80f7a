//! Brings a backup back: into an empty folder of data, or into a server that runs.
//!
//! Nothing is touched before the manifest was read and checked. What is unpacked counts only when
//! [`fetch_base`] has returned: until then a caller has to take the folder for unfinished.

mod files;
mod logical;
mod window;

use std::path::Path;
use std::sync::Arc;

use culvert_resources::Method;
use culvert_resources::instance::SourceConfig;
use jiff::Timestamp;

use crate::backup::error::JobError;
use crate::backup::manifest::{self, Content, Manifest, Sealed, Stream};
use crate::pack::{Meter, unpack};
use crate::storage::{Patience, Storage};

pub use logical::load_logical;
pub use window::{Outside, check_window, reachable_until};

/// A source that was looked at.
#[derive(Debug)]
pub struct Source {
    storage: Storage,
    folder: String,
    /// The manifest.
    pub manifest: Manifest,
    /// The moment that is wanted, when one is.
    pub point_in_time: Option<Timestamp>,
}

impl Source {
    /// Reads the manifest of a source and checks it, and the point in time that is wanted.
    ///
    /// # Errors
    /// The target, the manifest, or a point in time outside of what can be reached: that says the window.
    pub async fn open(config: &SourceConfig) -> Result<Self, JobError> {
        let storage = Storage::open(&config.target, Patience::WORK)?;
        let Sealed { manifest, .. } =
            manifest::read(&storage, &config.path, config.manifest_digest.as_deref()).await?;
        let point_in_time = config.point_in_time.as_deref().map(parse_time).transpose()?;
        if let Some(wanted) = point_in_time {
            let until = reachable_until(&storage, &config.path, &manifest).await?;
            check_window(&manifest, until, wanted)?;
        }
        Ok(Self { storage, folder: config.path.clone(), manifest, point_in_time })
    }

    /// Parameters of PostgreSQL for the recovery, besides `restore_command`.
    #[must_use]
    pub fn recovery(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("recovery_target_timeline", "latest".to_owned()),
            ("recovery_target_action", "promote".to_owned()),
        ];
        if let Some(point) = self.point_in_time {
            // With an offset: names of zones, `Z` among them, are not known yet when the server reads it.
            parameters.push(("recovery_target_time", point.to_string().replace('Z', "+00")));
        }
        parameters
    }

    /// Whether there is a log to fetch, so that a `restore_command` is of use.
    #[must_use]
    pub fn has_archive(&self) -> bool {
        self.manifest.log.as_ref().is_some_and(|log| log.archived)
    }

    /// Unpacks the dump of an engine that has one stream into `sink`. It counts only when this has returned.
    ///
    /// # Errors
    /// The target, damage, or the sink; what was unpacked is to be thrown away then.
    pub async fn fetch_dump<S>(&self, meter: &Arc<Meter>, sink: S) -> Result<(), JobError>
    where
        S: FnOnce(&mut dyn std::io::Read) -> std::io::Result<()> + Send + 'static,
    {
        meter.step("copying data");
        meter.expect(self.manifest.data_bytes);
        let dump = self.manifest.streams.iter().find(|stream| stream.content == Content::Dump);
        let dump =
            dump.ok_or_else(|| JobError::Configuration("the backup holds no dump of an engine".to_owned()))?;
        self.unpack(dump, meter, sink).await
    }

    async fn unpack<T, S>(&self, stream: &Stream, meter: &Arc<Meter>, sink: S) -> Result<T, JobError>
    where
        T: Send + 'static,
        S: FnOnce(&mut dyn std::io::Read) -> std::io::Result<T> + Send + 'static,
    {
        let key = if self.manifest.encryption.is_some() { self.storage.encryption_key()? } else { None };
        Ok(unpack(&self.storage, &self.folder, &stream.packed, key, meter, sink).await?)
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Timestamp, JobError> {
    text.parse().map_err(|_| JobError::Configuration(format!("{text:?} is no point in time (RFC 3339)")))
}

/// Unpacks a physical backup into an empty folder, which is made when it is not there. All is on the disk when
/// this returns.
///
/// # Errors
/// The target, damage, or the disk; what was unpacked is to be thrown away then.
pub async fn fetch_base(source: &Source, data: &Path, meter: &Arc<Meter>) -> Result<(), JobError> {
    if source.manifest.method != Method::Physical {
        return Err(JobError::Configuration("a logical backup has no files".to_owned()));
    }
    meter.step("copying files");
    meter.expect(source.manifest.data_bytes);
    let files = source.manifest.streams.iter().filter(|stream| stream.content == Content::Files);
    for stream in files {
        let data = data.to_owned();
        source.unpack(stream, meter, move |reader| files::unpack(reader, &data)).await?;
    }
    Ok(())
}
