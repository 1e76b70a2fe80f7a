//! The gateway's audit: one JSON line per request in an append-only file.
//!
//! The promise is that no request is carried out whose line could not be written. A request
//! takes a [`Slot`] of the queue before anything is forwarded; while the file cannot be
//! written, lines wait in memory, slots are refused, and requests with them. Streams (a watch,
//! a log, an `exec`) write a line when they begin and one when they end, so that a long one is
//! on record while it runs; everything else writes one line when its answer has been sent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Lines that may wait for the file. A line has at most about 4 KiB.
const QUEUE: usize = 8_192;
/// Lines written in one go.
const BATCH: usize = 512;
/// Written lines are on the disk after this time at the latest.
const SYNC: Duration = Duration::from_secs(1);
/// Pause before the file is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a request waits for a slot when the queue is full.
const PATIENCE: Duration = Duration::from_millis(250);

/// One line.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Line {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// `complete`, or `started` and `ended` for streams.
    pub(crate) stage: &'static str,
    pub(crate) request_id: String,
    pub(crate) org: String,
    pub(crate) cluster: String,
    pub(crate) actor: String,
    pub(crate) actor_id: String,
    pub(crate) credential: &'static str,
    pub(crate) credential_id: String,
    pub(crate) source: String,
    pub(crate) method: String,
    /// Without the query, which may hold what people type into an `exec`.
    pub(crate) path: String,
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) user_agent: String,
    pub(crate) status: u16,
    /// Why it was refused or cut, as a stable word; empty when it was not.
    pub(crate) cause: String,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) duration_ms: u64,
}

/// Takes lines; clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    queue: mpsc::Sender<Vec<u8>>,
    failing: Arc<AtomicBool>,
}

/// A place in the queue for one line.
#[derive(Debug)]
pub(crate) struct Slot(mpsc::OwnedPermit<Vec<u8>>);

/// The audit cannot be written at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit file cannot be written")]
pub(crate) struct SpoolFailing;

/// Writes the queue to the file.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    path: PathBuf,
    queue: mpsc::Receiver<Vec<u8>>,
    failing: Arc<AtomicBool>,
    file: Option<File>,
}

impl Spool {
    /// Opens the file, making its folder. A line that a crash cut short is closed, so that the
    /// next one is whole.
    pub(crate) async fn open(path: &Path) -> io::Result<(Spool, SpoolWriter)> {
        let file = open(path).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let failing = Arc::new(AtomicBool::new(false));
        let spool = Spool { queue: sender, failing: failing.clone() };
        Ok((spool, SpoolWriter { path: path.to_owned(), queue: receiver, failing, file: Some(file) }))
    }

    /// A place for a line, or the reason to refuse the request.
    pub(crate) async fn slot(&self) -> Result<Slot, SpoolFailing> {
        if self.failing.load(Ordering::Acquire) {
            return Err(SpoolFailing);
        }
        match timeout(PATIENCE, self.queue.clone().reserve_owned()).await {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) | Err(_) => Err(SpoolFailing),
        }
    }

    /// Writes a line of a request that was carried out already, waiting as long as it takes.
    pub(crate) async fn write_late(&self, line: &Line) {
        if let Ok(permit) = self.queue.clone().reserve_owned().await {
            Slot(permit).write(line);
        }
    }

    /// A look at the state that does not keep the writer from ending.
    pub(crate) fn watch(&self) -> SpoolWatch {
        SpoolWatch(self.failing.clone())
    }
}

/// Tells whether the file can be written.
#[derive(Debug, Clone)]
pub(crate) struct SpoolWatch(Arc<AtomicBool>);

impl SpoolWatch {
    pub(crate) fn is_failing(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Slot {
    pub(crate) fn write(self, line: &Line) {
        // Text and numbers always serialise.
        let mut bytes = serde_json::to_vec(line).unwrap_or_default();
        bytes.push(b'\n');
        self.0.send(bytes);
    }
}

impl SpoolWriter {
    /// Runs until every [`Spool`] is gone and its last line is on the disk.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut unsynced: Option<Instant> = None;
        loop {
            let due = unsynced.map(|since| since + SYNC);
            tokio::select! {
                biased;
                () = at(due), if due.is_some() => {
                    self.sync().await;
                    unsynced = None;
                }
                count = self.queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        self.sync().await;
                        return Ok(());
                    }
                    self.write(&batch.concat()).await;
                    batch.clear();
                    unsynced.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Writes until it succeeds.
    async fn write(&mut self, lines: &[u8]) {
        loop {
            match self.try_write(lines).await {
                Ok(()) => {
                    if self.failing.swap(false, Ordering::AcqRel) {
                        tracing::info!(path = %self.path.display(), "the audit file can be written again");
                    }
                    return;
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::AcqRel) {
                        tracing::error!(path = %self.path.display(), %error, "the audit file cannot be written; the gateway refuses requests until it can");
                    }
                    self.file = None;
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// A write that fails half-way leaves a torn line behind, which reopening closes; the lines
    /// of the batch are then written again. A line may so be there twice, never not at all.
    async fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path).await?,
        };
        file.write_all(lines).await?;
        file.flush().await?;
        self.file = Some(file);
        Ok(())
    }

    async fn sync(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = file.sync_data().await
        {
            tracing::error!(path = %self.path.display(), %error, "the audit file could not be made durable");
            self.failing.store(true, Ordering::Release);
            self.file = None;
            self.write(&[]).await;
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).await?;
    if !ends_with_a_line(&mut file).await? {
        file.write_all(b"\n").await?;
        file.flush().await?;
    }
    Ok(file)
}

async fn ends_with_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata().await?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0u8; 1];
    file.seek(io::SeekFrom::End(-1)).await?;
    file.read_exact(&mut last).await?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request_id: &str) -> Line {
        Line { request_id: request_id.into(), stage: "complete", ..Line::default() }
    }

    async fn lines(path: &Path) -> Vec<String> {
        let text = tokio::fs::read_to_string(path).await.unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_line_is_in_the_file_when_the_writer_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/gateway.jsonl");
        let (spool, writer) = Spool::open(&path).await.unwrap();
        let writing = tokio::spawn(writer.run());
        for number in 0..2_000 {
            spool.slot().await.unwrap().write(&line(&number.to_string()));
        }
        drop(spool);
        writing.await.unwrap().unwrap();
        let lines = lines(&path).await;
        assert_eq!(lines.len(), 2_000);
        for (number, line) in lines.iter().enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["request_id"], number.to_string());
        }
    }

    #[tokio::test]
    async fn a_line_cut_short_by_a_crash_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.jsonl");
        tokio::fs::write(&path, "{\"whole\":1}\n{\"torn\":").await.unwrap();
        let (spool, writer) = Spool::open(&path).await.unwrap();
        spool.slot().await.unwrap().write(&line("next"));
        drop(spool);
        writer.run().await.unwrap();
        let lines = lines(&path).await;
        assert_eq!((lines.len(), lines[1].as_str()), (3, "{\"torn\":"));
        assert!(serde_json::from_str::<serde_json::Value>(&lines[2]).is_ok());
    }

    #[tokio::test]
    async fn while_the_file_cannot_be_written_requests_are_refused_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/gateway.jsonl");
        let (spool, mut writer) = Spool::open(&path).await.unwrap();
        writer.file = None;
        tokio::fs::remove_dir_all(folder.path().join("audit")).await.unwrap();
        tokio::fs::write(folder.path().join("audit"), "in the way").await.unwrap();
        let writing = tokio::spawn(writer.run());
        spool.slot().await.unwrap().write(&line("kept"));
        let refused = async {
            while spool.slot().await.is_ok() {
                tokio::task::yield_now().await
            }
        };
        timeout(Duration::from_secs(10), refused).await.expect("the spool never said that it is failing");

        tokio::fs::remove_file(folder.path().join("audit")).await.unwrap();
        let accepted = async {
            while spool.slot().await.is_err() {
                tokio::task::yield_now().await
            }
        };
        timeout(Duration::from_secs(10), accepted).await.expect("the spool never recovered");
        drop(spool);
        writing.await.unwrap().unwrap();
        assert_eq!(lines(&path).await.len(), 1);
    }
}
