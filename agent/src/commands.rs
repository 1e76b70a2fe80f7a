//! What each command of the program does, and the exit code it ends with.
use std::io::Write;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Command, EXIT_CONFIG, Environment, Flags, Settings};
use crate::link::Timing;
use crate::{health, log, preflight, run};

/// Why a command failed: the exit code, and what to say.
type Failed = (u8, anyhow::Error);

/// Runs one command to its end.
///
/// # Errors
/// The exit code and what to print on standard error.
pub fn execute(command: Command) -> Result<(), (u8, anyhow::Error)> {
    match command {
        Command::Version => print(&format!("culvert-agent {}\n", crate::VERSION)),
        Command::Health(flags) => {
            let path = flags.path().map_err(|error| (EXIT_CONFIG, error.into()))?;
            health::probe(&path, flags.ready, SystemTime::now())
                .map(|_| ())
                .map_err(|error| (1, error.into()))
        }
        Command::Preflight(flags) => {
            let settings = settings(&flags)?;
            let checks = start(&flags)?.block_on(preflight::run(&settings));
            print(&preflight::table(&checks))?;
            if preflight::passed(&checks) {
                Ok(())
            } else {
                Err((1, anyhow::anyhow!("the agent would not work")))
            }
        }
        Command::Run(flags) => {
            let settings = settings(&flags)?;
            start(&flags)?.block_on(until_told(settings))
        }
    }
}

fn settings(flags: &Flags) -> Result<Settings, Failed> {
    Settings::from_flags(flags, &Environment::read()).map_err(|error| (EXIT_CONFIG, error.into()))
}

fn start(flags: &Flags) -> Result<tokio::runtime::Runtime, Failed> {
    log::start(flags.log_format, &flags.log).map_err(|error| (EXIT_CONFIG, error.into()))?;
    tokio::runtime::Runtime::new().map_err(|error| (1, error.into()))
}

/// Runs the agent until a signal ends it.
async fn until_told(settings: Settings) -> Result<(), Failed> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| (1, error.into()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| (1, error.into()))?;
    let mut run = Box::pin(run::run(settings, Timing::default(), stop.clone()));
    let ended = tokio::select! {
        ended = &mut run => ended,
        _ = terminate.recv() => { stop.cancel(); run.await }
        _ = interrupt.recv() => { stop.cancel(); run.await }
    };
    ended.map_err(|exit| (exit.code(), exit.into()))
}

fn print(text: &str) -> Result<(), Failed> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| (1, error.into()))
}
