//! Processor time and memory of processes, as /proc tells.

use std::time::Duration;

use anyhow::Context;

/// Clock ticks in a second: the kernel's USER_HZ, which is 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// What some processes use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time since their start.
    pub(crate) cpu: Duration,
    /// Resident memory, bytes.
    pub(crate) memory: u64,
}

impl Usage {
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            sum.cpu += cpu(&stat).context("no times in stat")?;
            sum.memory += resident(&status).context("no VmRSS in status")?;
        }
        Ok(sum)
    }
}

/// User and system time; the name before them may hold anything but ends with the last bracket.
fn cpu(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
