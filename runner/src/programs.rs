//! Runs a program of the engine to its end, with a limit, and keeps the end of what it said for the error.
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use crate::engine::EngineError;

/// Bytes of standard output that are kept.
const LONGEST: u64 = 1 << 20;
/// Lines of standard error that an error repeats.
const LINES: usize = 4;
/// Characters of each of them.
const WIDTH: usize = 300;

/// A program that is to be run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<String>,
    /// Its environment besides the pod's; never a secret.
    pub env: Vec<(String, String)>,
    /// How long it may take; none for work whose length nobody knows.
    pub limit: Option<Duration>,
}

impl Program {
    /// A program without arguments, that may take a minute.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, args: Vec::new(), env: Vec::new(), limit: Some(Duration::from_secs(60)) }
    }

    /// With these arguments too.
    #[must_use]
    pub fn args<I: Into<String>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// With this limit.
    #[must_use]
    pub fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Runs it; its standard output. It is killed when this is dropped.
    ///
    /// # Errors
    /// [`EngineError`] when it cannot be started, fails, or takes too long.
    pub async fn run(&self) -> Result<String, EngineError> {
        let Some(limit) = self.limit else { return self.run_on().await };
        match tokio::time::timeout(limit, self.run_on()).await {
            Ok(done) => done,
            Err(_) => Err(EngineError::Late { what: self.name(), limit }),
        }
    }

    async fn run_on(&self) -> Result<String, EngineError> {
        let failed = |source| EngineError::file(format!("run {}", self.path.display()), source);
        let mut command = Command::new(&self.path);
        // The environment of the pod could send it elsewhere.
        command.args(&self.args).env_clear().envs(path()).env("LC_ALL", "C").envs(self.env.iter().cloned());
        command.kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, said, status) = tokio::join!(output(out), tail(err), child.wait());
        let status = status.map_err(failed)?;
        if status.success() {
            return out.map_err(failed);
        }
        Err(EngineError::Program { program: self.name(), status: status.to_string(), said })
    }
}

/// Where programs are found: all that a program gets from this one's environment.
pub fn path() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os("PATH").map(|path| ("PATH", path))
}

async fn output(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(LONGEST).read_to_end(&mut kept).await?;
        // What is beyond is read, so that the program does not block.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// The last lines, fit for an error.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(stream) = stream else { return String::new() };
    let mut lines = BufReader::new(stream).split(b'\n');
    let mut kept: Vec<String> = Vec::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        let line: String =
            String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(WIDTH).collect();
        if line.trim().is_empty() {
            continue;
        }
        tracing::debug!(line, "said");
        if kept.len() == LINES {
            kept.remove(0);
        }
        kept.push(line);
    }
    kept.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh".into()).args(["-c", script])
    }

    #[tokio::test]
    async fn the_error_holds_the_end_of_what_was_said() {
        let error = shell("for i in 1 2 3 4 5 6; do echo line $i >&2; done; exit 3").run().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 6") && text.contains("line 3") && !text.contains("line 2"), "{text}");
        assert_eq!(shell("echo good").run().await.unwrap(), "good\n");
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended() {
        let late = shell("sleep 60").limit(Some(Duration::from_millis(50))).run().await;
        assert!(matches!(late, Err(EngineError::Late { .. })), "{late:?}");
    }
}
