//! Brings files of the log back from an archive.

use std::io::Write as _;
use std::path::Path;

use super::WalName;
use super::archive::on_a_thread;
use super::object::{self, LONGEST, WalError};
use crate::storage::{FaultCode, Storage};

/// Whether a file was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// It was, and is where it was wanted.
    Here,
    /// The archive has none of this name.
    Missing,
}

/// Brings a file back. It appears at `to` whole, or not at all.
pub async fn fetch_file(
    storage: &Storage,
    folder: &str,
    name: &WalName,
    to: &Path,
) -> Result<Fetched, WalError> {
    let Some(content) = fetch(storage, folder, name).await? else { return Ok(Fetched::Missing) };
    let to = to.to_owned();
    on_a_thread(move || write(&content, &to)).await?;
    Ok(Fetched::Here)
}

/// The content; an archive that was not always encrypted has both kinds.
async fn fetch(storage: &Storage, folder: &str, name: &WalName) -> Result<Option<Vec<u8>>, WalError> {
    let key = storage.encryption_key()?;
    let kinds = if key.is_some() { [true, false] } else { [false, true] };
    for encrypted in kinds {
        let object = match storage.get(&object::path(folder, name, encrypted), LONGEST).await {
            Err(fault) if fault.code == FaultCode::NotFound => continue,
            object => object?,
        };
        let key = match (encrypted, &key) {
            (true, None) => {
                return Err(WalError::Request(format!(
                    "{name} is encrypted, and the target's Secret has no key"
                )));
            }
            (true, key) => key.clone(),
            (false, _) => None,
        };
        let of = name.clone();
        let decoded = on_a_thread(move || object::decode(&of, &object, key.as_deref())).await?;
        return Ok(Some(decoded.0));
    }
    Ok(None)
}

fn write(content: &[u8], to: &Path) -> Result<(), WalError> {
    let wrong = |error| WalError::file(format!("{} cannot be written", to.display()), error);
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
    file.write_all(content).map_err(wrong)?;
    file.persist(to).map_err(|error| wrong(error.error))?;
    Ok(())
}
