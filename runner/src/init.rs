//! The first process of the pod: passes signals on, buries orphans, and ends as the working process did.
//!
//! It is a process of its own so that burying everything that ended cannot take the end of a child away from the one
//! that waits for it. When the working process ends, however that is, this one ends too, and the kernel then ends
//! everything else in the pod, the engine first of all.
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this is the first process.
#[must_use]
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Starts the working process with the same arguments, and waits for its end; the exit code.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn stand_over() -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(watch())
}

async fn watch() -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut ended = signal(SignalKind::child()).context("listen for SIGCHLD")?;
    let worker = start()?;
    loop {
        let pass = tokio::select! {
            _ = terminate.recv() => Some(Signal::TERM),
            _ = interrupt.recv() => Some(Signal::INT),
            _ = hangup.recv() => Some(Signal::HUP),
            _ = ended.recv() => None,
        };
        if let Some(pass) = pass
            && let Err(error) = kill_process(worker, pass)
        {
            tracing::debug!(%error, "the working process has ended");
        }
        if let Some(status) = bury(worker)? {
            return Ok(code(status));
        }
    }
}

fn start() -> Result<Pid> {
    let args = std::env::args_os().skip(1);
    let child = Command::new("/proc/self/exe").args(args).arg("--beneath").spawn();
    let child = child.context("start the working process")?;
    Pid::from_raw(child.id().cast_signed()).context("the working process has no id")
}

/// Buries all that have ended; how the worker did, if it is among them.
fn bury(worker: Pid) -> Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == worker => found = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for children"),
        }
    }
}

/// As a shell tells it: the code, or 128 and the signal.
fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or_else(|| u8::from(ExitCode::FAILURE != ExitCode::SUCCESS))
}
