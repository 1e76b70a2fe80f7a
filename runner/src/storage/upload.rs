//! Writes an object of any length: parts in parallel, in a fixed memory, and nothing left behind.
//!
//! An upload that is killed leaves parts in a bucket that no listing shows and that cost money for ever. So
//! the id of each upload is written beside its object (`<object>.upload`) before its first part, and whoever
//! comes next ends it with [`super::Storage::abandon_uploads`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use tokio::task::JoinSet;

use super::Storage;
use super::fault::{Fault, FaultCode};

/// Bytes of each part but the last: all alike, as some stores demand.
pub const PART_BYTES: usize = 8 << 20;
/// Parts that are on the way at once. Together with one being filled this is the memory of an upload.
pub const PARTS_AT_ONCE: usize = 3;

/// How long parts that are on their way are waited for when an upload is given up: less than the grace of a pod.
const SETTLE_WITHIN: Duration = Duration::from_secs(15);
const JOURNAL: &str = ".upload";
/// Longest id of an upload that is read back.
const LONGEST_ID: u64 = 4096;

pub(super) fn is_journal(path: &str) -> bool {
    path.ends_with(JOURNAL)
}

type Sent = Result<(usize, Option<PartId>), object_store::Error>;

/// An object that is being written. It becomes visible when it is finished, and not before.
pub struct Upload {
    storage: Storage,
    path: String,
    at: Path,
    way: Way,
    sending: JoinSet<Sent>,
    parts: Vec<Option<PartId>>,
}

enum Way {
    /// Nothing is sent yet: what fits into one part is put whole.
    Unbegun,
    /// The store gave an id.
    Known(Arc<dyn MultipartStore>, String),
    /// What was sent goes by itself when it is not finished.
    Plain(Box<dyn MultipartUpload>),
}

impl Upload {
    pub(super) fn new(storage: Storage, path: &str) -> Self {
        let at = storage.at(path);
        let path = path.to_owned();
        Self { storage, path, at, way: Way::Unbegun, sending: JoinSet::new(), parts: Vec::new() }
    }

    /// Sends a part; [`PART_BYTES`] long, unless it is the last. Waits while too many are on the way.
    pub async fn part(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.begin().await?;
        while self.sending.len() >= PARTS_AT_ONCE {
            self.reap().await?;
        }
        let (number, payload) = (self.parts.len(), PutPayload::from(bytes));
        self.parts.push(None);
        match &mut self.way {
            Way::Known(store, id) => {
                let (store, id, at) = (Arc::clone(store), id.clone(), self.at.clone());
                self.sending.spawn(async move {
                    store.put_part(&at, &id, number, payload).await.map(|part| (number, Some(part)))
                });
            }
            Way::Plain(upload) => {
                let sent = upload.put_part(payload);
                self.sending.spawn(async move { sent.await.map(|()| (number, None)) });
            }
            Way::Unbegun => return Err(self.unexpected("a part was sent before the upload began")),
        }
        Ok(())
    }

    /// Ends the object with its last bytes, and makes it visible. When this fails, or is not waited for, give the
    /// upload up.
    pub async fn finish(&mut self, last: Bytes) -> Result<(), Fault> {
        if matches!(self.way, Way::Unbegun) {
            return self.storage.put(&self.path, last).await.map(|_| ());
        }
        if !last.is_empty() {
            self.part(last).await?;
        }
        while !self.sending.is_empty() {
            self.reap().await?;
        }
        self.complete().await
    }

    /// Gives it up, and removes what was sent.
    pub async fn abort(mut self) -> Result<(), Fault> {
        self.settle().await;
        match &mut self.way {
            Way::Unbegun => Ok(()),
            Way::Known(..) => abandon(&self.storage, &format!("{}{JOURNAL}", self.path)).await,
            Way::Plain(upload) => upload.abort().await.map_err(|error| self.storage.fault(&error)),
        }
    }

    /// A part that is on its way when its upload is aborted may still be kept, and then nobody knows of it. So
    /// those get a while to arrive; whether they do does not matter any more.
    async fn settle(&mut self) {
        let arriving = async { while self.sending.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE_WITHIN, arriving).await.is_err() {
            self.sending.shutdown().await;
        }
    }

    async fn begin(&mut self) -> Result<(), Fault> {
        if !matches!(self.way, Way::Unbegun) {
            return Ok(());
        }
        self.way = match self.storage.multipart.clone() {
            Some(store) => {
                let id =
                    store.create_multipart(&self.at).await.map_err(|error| self.storage.fault(&error))?;
                self.storage.put(&format!("{}{JOURNAL}", self.path), id.clone().into_bytes()).await?;
                Way::Known(store, id)
            }
            None => {
                let upload = self.storage.objects.put_multipart(&self.at).await;
                Way::Plain(upload.map_err(|error| self.storage.fault(&error))?)
            }
        };
        Ok(())
    }

    async fn reap(&mut self) -> Result<(), Fault> {
        let Some(sent) = self.sending.join_next().await else { return Ok(()) };
        let sent = sent.map_err(|_| self.unexpected("a part was not sent"))?;
        let (number, part) = sent.map_err(|error| self.storage.fault(&error))?;
        if let Some(slot) = self.parts.get_mut(number) {
            *slot = part;
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), Fault> {
        let completed = match &mut self.way {
            Way::Known(store, id) => {
                let parts: Vec<PartId> = self.parts.iter_mut().filter_map(Option::take).collect();
                store.complete_multipart(&self.at, id, parts).await
            }
            Way::Plain(upload) => upload.complete().await,
            Way::Unbegun => return Ok(()),
        };
        completed.map_err(|error| self.storage.fault(&error))?;
        match self.way {
            Way::Known(..) => self.storage.delete(&format!("{}{JOURNAL}", self.path)).await,
            _ => Ok(()),
        }
    }

    fn unexpected(&self, detail: &str) -> Fault {
        Fault::new(FaultCode::Unexpected, self.storage.name(), detail)
    }
}

/// Ends the upload that a journal tells of, and removes the journal.
pub(super) async fn abandon(storage: &Storage, journal: &str) -> Result<(), Fault> {
    let Some(object) = journal.strip_suffix(JOURNAL) else { return Ok(()) };
    if let Some(store) = &storage.multipart {
        let id = storage.get(journal, LONGEST_ID).await?;
        let id = String::from_utf8_lossy(&id).into_owned();
        match store.abort_multipart(&storage.at(object), &id).await {
            // Ended before, by somebody else or by itself.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(storage.fault(&error)),
        }
    }
    storage.delete(journal).await
}

/// On a share, a write that was killed leaves `<object>#<number>`.
pub(super) fn remove_staged(storage: &Storage, folder: &str) -> Result<(), Fault> {
    let Some(share) = &storage.share else { return Ok(()) };
    let folder = share.join(storage.at(folder).as_ref());
    let Ok(files) = std::fs::read_dir(&folder) else { return Ok(()) };
    for file in files.flatten() {
        if is_staged(&file.file_name().to_string_lossy()) {
            std::fs::remove_file(file.path()).map_err(|error| {
                let detail = format!("what a killed write left cannot be removed: {error}");
                Fault::new(FaultCode::AccessDenied, storage.name(), detail)
            })?;
        }
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}
