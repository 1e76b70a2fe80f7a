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
        Command::Job(args) => {
            start_log(&args.log)?;
            runtime()?.block_on(crate::backup::job(args))
        }
        Command::ArchiveWal { path, name, folders } => {
            runtime()?.block_on(crate::wal::archive(&folders, &path, &name))
        }
        Command::FetchWal { name, path, folders } => {
            // The code of a failure would be taken for the end of the log.
            runtime().map_or(Ok(crate::wal::EXIT_FAULT), |runtime| {
                runtime.block_on(crate::wal::fetch(&folders, &name, &path))
            })
        }
        // The first process of a pod has the orphans to bury, and another does the work.
        Command::Run(args) if crate::init::is_first() && !args.beneath => crate::init::stand_over(),
        Command::Run(args) => {
            start_log(&args.log)?;
            runtime()?.block_on(crate::run::run(args))
        }
        Command::Probe { what, port } => runtime()?.block_on(crate::run::probe(what, port)),
    }
}

fn start_log(directives: &str) -> Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(directives).context("read the directives of the log")?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .json()
        .flatten_event(true)
        .try_init();
    started.map_err(|error| anyhow::anyhow!("start the log: {error}"))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
}
