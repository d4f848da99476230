//! Signals to processes by id.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Sends `signal` to one process; a process that is gone already is no error.
pub(crate) fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends `signal` to a container's process and to everything that it started in its process group.
pub(crate) fn kill_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}
