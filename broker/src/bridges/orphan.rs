//! Child processes do not outlive a gateway that is killed: each begins as this program, asks the kernel for a signal at the
//! end of its parent, and becomes the server. The signal goes to the child alone; what that has started hears of it, or of the
//! end of its input. On systems other than Linux there is no such signal.

use crate::options::CHILD_OF;
use std::path::Path;
use tokio::process::Command;

/// A command for this program, which has to be a path.
pub(super) fn command(program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        // Not the path of the file: it may have been replaced by another version.
        let mut command = Command::new("/proc/self/exe");
        let parent = std::process::id().to_string();
        command.args([CHILD_OF, &parent]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Becomes the server; returns only when that fails.
#[cfg(target_os = "linux")]
pub fn become_server(parent: &str, program: &str, arguments: &[String]) -> std::io::Error {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt as _;
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // The parent may have ended before it could be followed.
    let own = getppid().map(|id| id.as_raw_nonzero().to_string());
    if own.as_deref() != Some(parent) {
        return std::io::Error::other("the gateway has ended");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Nothing begins a child in this way here.
#[cfg(not(target_os = "linux"))]
pub fn become_server(_: &str, _: &str, _: &[String]) -> std::io::Error {
    std::io::ErrorKind::Unsupported.into()
}
