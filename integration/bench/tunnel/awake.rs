//! Keeps the processors from going to sleep while latencies are measured, and yields to all else.

use std::process::Command;

use culvert_integration::process::Child;

/// Loops at the lowest of priorities, one for each core; ended when dropped.
pub(crate) struct Awake {
    _loops: Vec<Child>,
    _logs: tempfile::TempDir,
}

impl Awake {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let logs = tempfile::tempdir()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spawn = |core: usize| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(std::env::current_exe()?).args(["role", "spin"]);
            Child::spawn("spin", command, &logs.path().join(core.to_string()))
        };
        let loops = (0..cores).map(spawn).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { _loops: loops, _logs: logs })
    }
}

/// The role of a loop.
pub(crate) fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
