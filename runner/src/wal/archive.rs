//! Puts files of the log into the archive.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::WalName;
use super::object::{self, About, LONGEST, WalError};
use crate::storage::{FaultCode, Storage};

/// Puts a file into the archive. That it lies there already, with the same content, is success.
pub async fn archive_file(
    storage: &Storage,
    folder: &str,
    name: &WalName,
    file: &Path,
) -> Result<(), WalError> {
    let (content, about) = read(file.to_owned()).await?;
    let key = storage.encryption_key()?;
    let path = object::path(folder, name, key.is_some());
    let (of, plain, with) = (name.clone(), content.clone(), key.clone());
    let object = on_a_thread(move || object::encode(&of, &plain, &about, with.as_deref())).await?;
    match storage.put_new(&path, object).await {
        Err(fault) if fault.code == FaultCode::Exists => {
            let there = storage.get(&path, LONGEST).await?;
            let (there, _) = object::decode(name, &there, key.as_deref())?;
            if there == content { Ok(()) } else { Err(WalError::OtherContent { name: name.to_string() }) }
        }
        put => Ok(put?),
    }
}

async fn read(file: PathBuf) -> Result<(Vec<u8>, About), WalError> {
    on_a_thread(move || {
        let wrong = |error| WalError::file(format!("{} cannot be read", file.display()), error);
        let written = std::fs::metadata(&file).and_then(|meta| meta.modified()).map_err(wrong)?;
        let content = std::fs::read(&file).map_err(wrong)?;
        let written = Timestamp::try_from(written).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok((content, About { written }))
    })
    .await
}

/// Compressing takes longer than a thread that waits for others may be kept.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WalError> + Send + 'static,
) -> Result<T, WalError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| WalError::Request("the work on a file was broken off".to_owned()))?
}
