//! Processor time and memory of processes, as /proc tells.

use std::time::Duration;

use anyhow::Context;

/// Clock ticks in a second: the kernel's USER_HZ, which is 100 on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// What some processes use together, each since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since their start.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub memory: u64,
    /// Bytes that it had written to disks.
    pub written: u64,
}

impl Usage {
    /// Adds up what /proc says of each.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
            sum.cpu += cpu(&stat).context("no times in stat")?;
            sum.memory += resident(&status).context("no VmRSS in status")?;
            sum.written += written(&io).context("no write_bytes in io")?;
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

fn written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b 1 2) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("7 (a) S 1"), None);
    }

    #[test]
    fn memory_and_writes_are_bytes() {
        assert_eq!(resident("VmHWM:\t  9 kB\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(written("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"), Some(4096));
    }

    #[test]
    fn this_very_process_uses_something() {
        assert!(Usage::of([std::process::id()]).unwrap().memory > 0);
    }
}
