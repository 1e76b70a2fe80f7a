//! Carries out what the command line asks for.
use anyhow::{Context as _, Result};

use crate::args::Command;

/// Carries out a command; the exit code when it did not fail.
///
/// # Errors
/// What went wrong, for a person.
pub fn execute(command: Command) -> Result<u8> {
    match command {
        Command::Install { folder } => {
            crate::install::install(&folder).with_context(|| format!("install into {}", folder.display()))?;
            Ok(0)
        }
        Command::Job(args) => runtime()?.block_on(crate::backup::job(args)),
        Command::ArchiveWal { path, name, folders } => {
            runtime()?.block_on(crate::wal::archive(&folders, &path, &name))
        }
        Command::FetchWal { name, path, folders } => {
            runtime()?.block_on(crate::wal::fetch(&folders, &name, &path))
        }
        Command::Run(_) | Command::Probe { .. } => anyhow::bail!("not there yet"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
}
