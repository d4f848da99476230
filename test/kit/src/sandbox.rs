//! The sandbox seen from outside: starts the inner process in namespaces of its own, waits for it, and ends with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::Binaries;
use crate::inside::Plan;
use crate::progress::say;
use crate::state_dir::StateDir;

/// The namespaces of the sandbox. `--kill-child`: nothing inside outlives `unshare`.
pub(crate) const UNSHARE: &[&str] = &[
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];
/// How long the inner process may take to end.
const END_GRACE: Duration = Duration::from_secs(15);
/// The exit code of a program that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 130;
const READY_POLL: Duration = Duration::from_millis(100);
/// Unix socket paths are at most 107 bytes; the longest name in the state directory has 12.
const LONGEST_STATE_PATH: usize = 90;

/// The processes of a running sandbox, as the host numbers them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Processes {
    /// The process that waits outside.
    pub(crate) outside: i32,
    /// The process inside whose namespaces `kit exec` enters.
    pub(crate) inside: i32,
}

/// Runs `plan` in a new sandbox and returns its exit code.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries) -> anyhow::Result<u8> {
    prepare(plan, binaries)?;
    let listener = UnixListener::bind(plan.state.life_socket()).context("bind the life socket")?;
    let mut child = start(plan)?;
    let life = tokio::select! {
        life = listener.accept() => life?.0,
        status = child.wait() => bail!("the sandbox did not start ({}); is another program in the way?", status?),
    };
    let inside = life.peer_cred()?.pid().context("the inner process has no id")?;
    let processes = Processes {
        outside: i32::try_from(std::process::id())?,
        inside,
    };
    std::fs::write(plan.state.sandbox(), serde_json::to_vec(&processes)?)?;
    let doors = plan.keep.then(|| tokio::spawn(open_doors(plan.state.clone())));
    let code = wait(child, life).await;
    if let Some(doors) = doors {
        doors.abort();
    }
    for file in [plan.state.sandbox(), plan.state.ready()] {
        let _ = std::fs::remove_file(file);
    }
    code
}

/// Waits for the boot, then opens the doors.
async fn open_doors(state: StateDir) {
    while !state.ready().exists() {
        tokio::time::sleep(READY_POLL).await;
    }
    if let Err(error) = crate::forward::open_doors(state).await {
        say(format!("kit: no ports on this machine: {error}"));
    }
}

fn prepare(plan: &Plan, binaries: &Binaries) -> anyhow::Result<()> {
    let root = plan.state.root();
    if root.as_os_str().len() > LONGEST_STATE_PATH {
        bail!(
            "the state directory's path is too long for Unix sockets (over {LONGEST_STATE_PATH} bytes): {}",
            root.display()
        );
    }
    plan.state
        .create()
        .with_context(|| format!("create {}", root.display()))?;
    std::fs::write(plan.state.binaries(), serde_json::to_vec(binaries)?)?;
    let exe = std::env::current_exe()?;
    let kit = plan.state.bin().join("kit");
    let _ = std::fs::remove_file(&kit);
    if std::fs::hard_link(&exe, &kit).is_err() {
        std::fs::copy(&exe, &kit)?;
    }
    Ok(())
}

fn start(plan: &Plan) -> anyhow::Result<Child> {
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(plan.state.bin().join("kit"));
    command.args(["init", "inside"]);
    for (flag, path) in [
        ("--dir", plan.state.root()),
        ("--bin-dir", plan.bin_dir.as_path()),
        ("--cache", plan.cache.as_path()),
    ] {
        command.arg(flag).arg(path);
    }
    if plan.keep {
        command.arg("--keep");
    }
    command.arg("--").args(&plan.command).kill_on_drop(true);
    command.spawn().context("start unshare")
}

/// Waits for the end; a signal closes the life socket, which tells the inner process to end.
async fn wait(mut child: Child, life: UnixStream) -> anyhow::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let status = tokio::select! {
        status = child.wait() => Some(status?),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
    };
    drop(life);
    let status = match status {
        Some(status) => status,
        None => match tokio::time::timeout(END_GRACE, child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                say("kit: the sandbox does not end; killing it");
                child.kill().await?;
                return Ok(INTERRUPTED);
            }
        },
    };
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// The processes of the sandbox whose state is in `dir`.
pub(crate) fn find(dir: &Path) -> anyhow::Result<Processes> {
    let state = StateDir::new(dir.to_owned());
    let text = std::fs::read(state.sandbox())
        .with_context(|| format!("no sandbox runs in {} (start one with `kit up`)", dir.display()))?;
    let processes: Processes = serde_json::from_slice(&text)?;
    if !Path::new(&format!("/proc/{}", processes.inside)).exists() {
        bail!(
            "the sandbox in {} is dead; remove the directory or start it again",
            dir.display()
        );
    }
    Ok(processes)
}

/// Runs a command in the sandbox of `dir` and returns its exit code.
pub(crate) async fn exec(dir: &Path, command: &[OsString]) -> anyhow::Result<u8> {
    let processes = find(dir)?;
    let state = StateDir::new(dir.to_owned());
    let here: PathBuf = std::env::current_dir()?;
    let status = Command::new("nsenter")
        .arg("--target")
        .arg(processes.inside.to_string())
        .args([
            "--user",
            "--preserve-credentials",
            "--net",
            "--mount",
            "--pid",
            "--",
        ])
        // Entering a mount namespace loses the working directory.
        .args(["sh", "-c", r#"cd "$0" 2>/dev/null; exec "$@""#])
        .arg(here)
        .args(command)
        .envs(crate::inside::environment(&state))
        .status()
        .await
        .context("start nsenter")?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// Ends the sandbox of `dir` and waits until it is gone.
pub(crate) async fn down(dir: &Path) -> anyhow::Result<()> {
    let processes = find(dir)?;
    crate::node::process::kill(processes.outside, rustix::process::Signal::TERM);
    crate::eventually::eventually(END_GRACE * 2, "the sandbox to end", async || {
        if Path::new(&format!("/proc/{}", processes.inside)).exists() {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    })
    .await?;
    Ok(())
}
