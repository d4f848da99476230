//! CPU time, which neighbours on the machine do not change.

use std::{fs, time::Duration};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

/// Ticks of `/proc/<pid>/stat` in a second: fixed in Linux's interface to programs.
const TICKS: u64 = 100;

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// CPU time of all processes whose program is called `program` (its first 15 characters count).
pub(crate) fn cpu_of(program: &str) -> Duration {
    let name: String = program.chars().take(15).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks: u64 = processes
        .filter_map(|process| fs::read_to_string(process.path().join("stat")).ok())
        .filter_map(|stat| ticks_of(&stat, &name))
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// CPU time of one process.
///
/// # Errors
/// When it does not run.
pub(crate) fn process_cpu(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (head, _) = stat.rsplit_once(')').context("no name")?;
    let (_, name) = head.split_once('(').context("no name")?;
    let ticks = ticks_of(&stat, name).context("no times")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Resident memory of one process in bytes.
///
/// # Errors
/// When it does not run.
pub(crate) fn memory_of(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?
        .trim()
        .parse()?;
    Ok(kilobytes * 1024)
}

/// User and system time of a line of `stat`, when it is about `name`.
fn ticks_of(stat: &str, name: &str) -> Option<u64> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, program) = head.split_once('(')?;
    let mut numbers = tail.split_whitespace().skip(11);
    let mut next = || numbers.next()?.parse::<u64>().ok();
    (program == name).then_some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (mcp-gateway-web) S 1 7 7 0 -1 4194560 5 0 0 0 30 12 0 0 20 0 3 0 1 2 3";
        assert_eq!(ticks_of(stat, "mcp-gateway-web"), Some(42));
        assert_eq!(ticks_of(stat, "other"), None);
    }
}
