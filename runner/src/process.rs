//! The engine's process: started, told to end, waited for.
use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::engine::Launch;
use crate::programs::path;

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    launch: Launch,
}

impl Process {
    /// Starts it, in a group of its own, so that a signal to the runner's group does not reach it. Its output goes where
    /// the runner's goes.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(launch: &Launch) -> io::Result<Self> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).env_clear().envs(path()).envs(launch.env.iter().cloned()).process_group(0);
        let child = command.stdin(std::process::Stdio::null()).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("the process ended while it was started"))?;
        Ok(Self { child, pid, launch: launch.clone() })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The signal that ends it now.
    #[must_use]
    pub fn abort_signal(&self) -> Signal {
        self.launch.abort
    }

    /// Lets it end in order.
    pub fn stop(&self) {
        self.send(self.launch.stop);
    }

    /// Ends it as a crash would.
    pub fn abort(&self) {
        self.send(self.launch.abort);
    }

    /// Ends it without leave.
    pub fn kill(&self) {
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        if let Err(error) = kill_process(self.pid, signal) {
            tracing::debug!(pid = self.pid.as_raw_nonzero().get(), %error, "the engine has ended already");
        }
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}
