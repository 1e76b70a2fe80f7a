//! The socket between PostgreSQL's commands and the runner beside the engine.
//!
//! A request is one line of JSON, and so is its answer. A command that finds nobody at the socket does the
//! work itself, with connections of its own.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::service::Service;
use crate::args::Folders;

/// Name of the socket in the folder in memory.
pub const SOCKET: &str = "wal.sock";
/// Longer than a store is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(400);
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_LINE: u64 = 16 << 10;
/// PostgreSQL archives one segment at a time and fetches one at a time.
const AT_ONCE: usize = 8;

/// What PostgreSQL asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub(super) enum Request {
    /// Put a file into the archive.
    Archive {
        /// The file.
        path: PathBuf,
        /// Its name in the archive.
        name: String,
    },
    /// Bring a file back.
    Fetch {
        /// Its name in the archive.
        name: String,
        /// Where it is wanted.
        path: PathBuf,
    },
}

impl Request {
    /// Paths of PostgreSQL are relative to its data, which is our working folder and not that of the runner.
    pub(super) fn archive(path: &Path, name: &str) -> Result<Self> {
        Ok(Self::Archive { path: absolute(path)?, name: name.to_owned() })
    }

    pub(super) fn fetch(name: &str, path: &Path) -> Result<Self> {
        Ok(Self::Fetch { path: absolute(path)?, name: name.to_owned() })
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} has no place", path.display()))
}

/// What PostgreSQL gets to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The exit code.
    pub(super) code: u8,
    /// For its log.
    pub(super) message: String,
}

impl Answer {
    pub(super) fn done() -> Self {
        Self { code: 0, message: String::new() }
    }
}

/// Serves the socket in the folder in memory until it is told to end.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(folders: &Folders, ended: CancellationToken) -> io::Result<()> {
    let path = folders.run.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let service = Service::new(folders, true);
    service.clear_ahead()?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let accepted = tokio::select! {
            () = ended.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, Arc::clone(&places).acquire_owned().await) else {
            continue;
        };
        let service = Arc::clone(&service);
        // Ends with its caller; nobody else waits for it.
        drop(tokio::spawn(async move {
            if let Err(error) = answer(stream, &service).await {
                tracing::debug!(%error, "a caller of the log's socket went away");
            }
            drop(place);
        }));
    }
}

async fn answer(stream: UnixStream, service: &Service) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut lines = BufReader::new(read.take(LONGEST_LINE));
    tokio::time::timeout(REQUEST_WITHIN, lines.read_line(&mut line)).await??;
    let request: Request = serde_json::from_str(&line)?;
    let answer = service.carry_out(&request).await;
    if !answer.message.is_empty() {
        tracing::warn!(message = answer.message, ?request, "a file of the log was not moved");
    }
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the runner, or does it ourselves when none answers. The exit code; every error has one, as the code of
/// a program that failed in some other way would be taken for the end of the log.
pub(super) async fn call(folders: &Folders, request: &Request) -> u8 {
    let asked = match UnixStream::connect(folders.run.join(SOCKET)).await {
        Ok(stream) => ask(stream, request).await.ok(),
        Err(_) => None,
    };
    let answer = match asked {
        Some(answer) => answer,
        None => Service::new(folders, false).carry_out(request).await,
    };
    if !answer.message.is_empty() {
        // PostgreSQL's log gets it; when nobody reads that, the code still tells.
        drop(io::Write::write_all(
            &mut io::stderr(),
            format!("culvert-runner: {}\n", answer.message).as_bytes(),
        ));
    }
    answer.code
}

async fn ask(mut stream: UnixStream, request: &Request) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = String::new();
    let mut lines = BufReader::new(stream.take(LONGEST_LINE));
    tokio::time::timeout(ANSWER_WITHIN, lines.read_line(&mut answer)).await??;
    if answer.is_empty() {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(serde_json::from_str(&answer)?)
    }
}
