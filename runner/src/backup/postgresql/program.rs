//! The server's own programs: where they are, and how they are run.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::backup::error::JobError;

/// How much of what a program says is kept: its end.
const SAID_BYTES: usize = 16 << 10;

/// Bytes of the pipe that data come through: what Linux lets anybody have, sixteen times its usual size, and so many
/// fewer turns between the two programs.
const PIPE_BYTES: usize = 1 << 20;

/// A folder with the programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs(PathBuf);

/// Where packages put them. `{}` is the major version.
const FOLDERS: [&str; 4] =
    ["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/usr/local/pgsql/bin", "/usr/local/bin"];

impl Programs {
    /// The programs in a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Looks where packages put them, then where `PATH` says.
    pub fn find(major: &str) -> Result<Self, JobError> {
        let usual = FOLDERS.iter().map(|folder| PathBuf::from(folder.replace("{}", major)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = usual.chain(std::env::split_paths(&path));
        let found = folders.into_iter().find(|folder| folder.join("pg_basebackup").is_file());
        found.map(Self).ok_or_else(|| {
            JobError::engine_stuck(
                "programs_missing",
                format!("the image has no pg_basebackup of PostgreSQL {major}"),
                "use an image with the client programs of the server's version",
            )
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        // What they say is read, and a caller's environment could send them elsewhere.
        command.env_clear().env("LC_ALL", "C").env("PATH", &self.0).kill_on_drop(true).stderr(Stdio::piped());
        command
    }

    /// Starts a program that writes to a pipe.
    pub(super) fn read_from(
        &self,
        name: &'static str,
        args: &[String],
    ) -> Result<(ChildStdout, Running), JobError> {
        let mut command = self.command(name);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| not_started(name, &error))?;
        let stdout = child.stdout.take().ok_or_else(|| no_pipe(name))?;
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES) {
            tracing::debug!(%error, "the pipe keeps its size; each turn moves less");
        }
        Ok((stdout, Running::new(name, child)))
    }

    /// Starts a program that reads from a pipe.
    pub(crate) fn write_to(
        &self,
        name: &'static str,
        args: &[String],
    ) -> Result<(ChildStdin, Running), JobError> {
        let mut command = self.command(name);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|error| not_started(name, &error))?;
        let stdin = child.stdin.take().ok_or_else(|| no_pipe(name))?;
        Ok((stdin, Running::new(name, child)))
    }
}

fn not_started(name: &str, error: &std::io::Error) -> JobError {
    JobError::engine_stuck(
        "programs_missing",
        format!("{name} cannot be started: {error}"),
        "use an image with the client programs of the server's version",
    )
}

fn no_pipe(name: &str) -> JobError {
    JobError::engine("dump_failed", format!("{name} has no pipe"))
}

/// A program that runs. It is killed when this goes.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    said: JoinHandle<String>,
}

impl Running {
    fn new(name: &'static str, mut child: Child) -> Self {
        let stderr = child.stderr.take();
        let said = tokio::spawn(async move {
            match stderr {
                Some(stderr) => end_of(stderr).await,
                None => String::new(),
            }
        });
        Self { name, child, said }
    }

    /// Waits for its end, and gives what it said when it ended well.
    pub(crate) async fn end(mut self) -> Result<String, JobError> {
        let status = self.child.wait().await.map_err(|error| no_end(self.name, &error))?;
        let said = self.said.await.unwrap_or_default();
        if status.success() {
            return Ok(said);
        }
        let last: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        Err(JobError::engine("dump_failed", format!("{} failed ({status}): {last}", self.name)))
    }

    /// The same, when nobody wants what it said.
    pub(super) fn ended(self) -> BoxFuture<'static, Result<(), JobError>> {
        Box::pin(async move { self.end().await.map(|_| ()) })
    }
}

fn no_end(name: &str, error: &std::io::Error) -> JobError {
    JobError::engine("dump_failed", format!("nothing is known of how {name} ended: {error}"))
}

/// Reads to the end and keeps the last of it, so that no program waits for a full pipe.
async fn end_of(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut block = vec![0; 4096];
    while let Ok(read) = from.read(&mut block).await {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(block.get(..read).unwrap_or_default());
        let over = kept.len().saturating_sub(SAID_BYTES);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
