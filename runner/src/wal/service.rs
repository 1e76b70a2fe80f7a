//! What the runner does for PostgreSQL's log: which archive is meant, and what is answered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_resources::instance::InstanceConfig;
use culvert_resources::job::TargetConfig;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::archive::archive_file;
use super::fetch::{Fetched, fetch_file};
use super::object::WalError;
use super::socket::{Answer, Request};
use super::{Segment, WalName, folder_beside};
use crate::args::Folders;
use crate::storage::{Patience, Storage};

/// The archive has no such file.
pub const EXIT_MISSING: u8 = 1;
/// Something is wrong: PostgreSQL ends a recovery on codes above 125, instead of taking it for the end of the log.
pub const EXIT_FAULT: u8 = 130;
/// How long a standby, or one that becomes primary, waits for a file of its log.
const PROMOTION_WAITS: Duration = Duration::from_secs(10);
/// Segments that are fetched before they are asked for.
const AHEAD: usize = 4;
/// Where they lie, on the volume, so that they need only be renamed.
const AHEAD_FOLDER: &str = "wal-ahead";

/// A target, and the folder of a log in it.
type Origin = (TargetConfig, String);

/// Carries out what PostgreSQL asks for.
pub(super) struct Service {
    folders: Folders,
    open: Mutex<Vec<(TargetConfig, Storage)>>,
    ahead: Mutex<BTreeMap<Segment, JoinHandle<Result<Fetched, WalError>>>>,
    /// Whether it lives long enough for that.
    reads_ahead: bool,
}

impl Service {
    pub(super) fn new(folders: &Folders, reads_ahead: bool) -> Arc<Self> {
        let folders = folders.clone();
        Arc::new(Self { folders, open: Mutex::default(), ahead: Mutex::default(), reads_ahead })
    }

    /// Does it and says what the engine gets to know.
    pub(super) async fn carry_out(&self, request: &Request) -> Answer {
        match self.try_to(request).await {
            Ok(Fetched::Here) => Answer::done(),
            Ok(Fetched::Missing) => Answer { code: EXIT_MISSING, message: String::new() },
            Err(error) => Answer { code: self.code(request), message: error.to_string() },
        }
    }

    /// A recovery to a point must not end early because a bucket is away. A standby asks again by itself, and
    /// its promotion must not fail for that reason.
    fn code(&self, request: &Request) -> u8 {
        match request {
            Request::Fetch { .. } if self.recovers() => EXIT_FAULT,
            _ => EXIT_MISSING,
        }
    }

    /// Whether a new service is being filled, up to the moment when its recovery has reached its end.
    fn recovers(&self) -> bool {
        self.folders.data().join("recovery.signal").exists()
    }

    async fn try_to(&self, request: &Request) -> Result<Fetched, WalError> {
        let config = self.config()?;
        match request {
            Request::Archive { path, name } => {
                let name = parse(name)?;
                let archive = config
                    .archive
                    .ok_or_else(|| WalError::Request("this service has no archive".to_owned()))?;
                let folder = format!("{}/{}", archive.path, super::FOLDER);
                let storage = self.storage(&archive.target).await?;
                archive_file(&storage, &folder, &name, path).await?;
                Ok(Fetched::Here)
            }
            Request::Fetch { name, path } if self.recovers() => {
                self.fetch_from(self.origins(config)?, &parse(name)?, path).await
            }
            Request::Fetch { name, path } => {
                let wanted = parse(name)?;
                let fetching = self.fetch_from(self.origins(config)?, &wanted, path);
                let late = |_| WalError::Request(format!("{name} did not come in time"));
                tokio::time::timeout(PROMOTION_WAITS, fetching).await.map_err(late)?
            }
        }
    }

    async fn fetch_from(&self, origins: Vec<Origin>, name: &WalName, to: &Path) -> Result<Fetched, WalError> {
        for (target, folder) in origins {
            let storage = self.storage(&target).await?;
            if self.fetch(&storage, &folder, name, to).await? == Fetched::Here {
                return Ok(Fetched::Here);
            }
        }
        Ok(Fetched::Missing)
    }

    fn config(&self) -> Result<InstanceConfig, WalError> {
        let path = self.folders.config.join("instance.json");
        let wrong = |error| WalError::file(format!("{} cannot be read", path.display()), error);
        let text = std::fs::read(&path).map_err(wrong)?;
        serde_json::from_slice(&text).map_err(|error| wrong(error.into()))
    }

    /// Where the log is looked for, in order. While a new service is filled it comes from its source alone, and on a
    /// standby from its own archive alone: the two may use the same numbers of timelines for different things. When
    /// PostgreSQL asks at the end of a recovery where a timeline came from, neither file that tells the two apart is
    /// there any more.
    fn origins(&self, config: InstanceConfig) -> Result<Vec<Origin>, WalError> {
        let follows = self.folders.data().join("standby.signal").exists();
        let own =
            config.archive.map(|archive| (archive.target, format!("{}/{}", archive.path, super::FOLDER)));
        let source = config.source.map(|source| {
            let folder = folder_beside(&source.path);
            let wrong = || WalError::Request(format!("{} is not the folder of a backup", source.path));
            folder.ok_or_else(wrong).map(|folder| (source.target, folder))
        });
        let source = source.transpose()?;
        Ok(match (self.recovers(), follows) {
            (true, _) => source.or(own).into_iter().collect(),
            (false, true) => own.into_iter().collect(),
            (false, false) => own.into_iter().chain(source).collect(),
        })
    }

    /// A target stays open, with its connections, until its configuration changes.
    async fn storage(&self, target: &TargetConfig) -> Result<Storage, WalError> {
        let mut open = self.open.lock().await;
        if let Some((_, storage)) = open.iter().find(|(config, _)| config == target) {
            return Ok(storage.clone());
        }
        let storage = Storage::open(target, Patience::WORK)?;
        open.retain(|(config, _)| config.name != target.name);
        open.push((target.clone(), storage.clone()));
        Ok(storage)
    }

    async fn fetch(
        &self,
        storage: &Storage,
        folder: &str,
        name: &WalName,
        to: &Path,
    ) -> Result<Fetched, WalError> {
        let WalName::Segment(segment) = name else { return fetch_file(storage, folder, name, to).await };
        let fetched = match self.ahead.lock().await.remove(segment) {
            Some(task) => self.take(*segment, task, to).await,
            None => None,
        };
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => fetch_file(storage, folder, name, to).await?,
        };
        if fetched == Fetched::Here && self.reads_ahead {
            self.read_ahead(storage, folder, *segment, segment_bytes(to)).await;
        }
        Ok(fetched)
    }

    /// What was fetched ahead, when that went well; a miss may have been too early, so it counts for nothing.
    async fn take(
        &self,
        segment: Segment,
        task: JoinHandle<Result<Fetched, WalError>>,
        to: &Path,
    ) -> Option<Fetched> {
        let Ok(Ok(Fetched::Here)) = task.await else { return None };
        tokio::fs::rename(self.ahead_path(segment), to).await.ok().map(|()| Fetched::Here)
    }

    fn ahead_path(&self, segment: Segment) -> PathBuf {
        self.folders.volume.join(AHEAD_FOLDER).join(segment.to_string())
    }

    async fn read_ahead(&self, storage: &Storage, folder: &str, from: Segment, bytes: u64) {
        let mut ahead = self.ahead.lock().await;
        let wanted: Vec<Segment> =
            std::iter::successors(Some(from.next(bytes)), |segment| Some(segment.next(bytes)))
                .take(AHEAD)
                .collect();
        ahead.retain(|segment, task| {
            let keep = wanted.contains(segment);
            if !keep {
                task.abort();
            }
            keep
        });
        for segment in wanted {
            let (storage, folder, to) = (storage.clone(), folder.to_owned(), self.ahead_path(segment));
            ahead.entry(segment).or_insert_with(|| {
                tokio::spawn(
                    async move { fetch_file(&storage, &folder, &WalName::Segment(segment), &to).await },
                )
            });
        }
    }

    /// Empties the folder of what is fetched ahead; what a runner before left there is worth nothing.
    pub(super) fn clear_ahead(&self) -> io::Result<()> {
        let folder = self.folders.volume.join(AHEAD_FOLDER);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&folder)
    }
}

fn parse(name: &str) -> Result<WalName, WalError> {
    name.parse().map_err(|error: super::NoWalName| WalError::Request(error.to_string()))
}

/// A segment tells the length of all by its own; 16 MiB is the usual one.
fn segment_bytes(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(16 << 20, |meta| meta.len())
}
