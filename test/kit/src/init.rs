//! Process 1 of the sandbox: starts the real work as its child and collects orphans, so that no zombie is ever mistaken
//! for a living process. When it ends, the kernel kills everything else in the sandbox.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions, wait};

/// Runs this program again with `args`, collects every dead child, and returns the exit code of that one.
///
/// # Errors
/// When the child cannot be started.
pub(crate) fn run(args: &[std::ffi::OsString]) -> std::io::Result<ExitCode> {
    let exe = std::env::current_exe()?;
    let child = Command::new(exe).args(args).spawn()?;
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == main => return Ok(exit_code(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(ExitCode::FAILURE),
        }
    }
}

fn exit_code(status: rustix::process::WaitStatus) -> ExitCode {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
