//! Keeps a component of the control plane running: its log, its process id, and a new start when it dies, unless a hold
//! file says that a test wants it dead.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tracing::{info, warn};

use crate::state_dir::StateDir;

const RESTART_DELAY: Duration = Duration::from_millis(300);
const HOLD_POLL: Duration = Duration::from_millis(50);

/// One program of the control plane.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(&'static str, String)>,
}

/// Starts `component` and keeps it running until the task is dropped with the runtime.
pub(crate) fn supervise(state: &StateDir, component: Component) {
    let state = state.clone();
    tokio::spawn(async move {
        loop {
            while state.hold_file(component.name).exists() {
                tokio::time::sleep(HOLD_POLL).await;
            }
            run_once(&state, &component).await;
            tokio::time::sleep(RESTART_DELAY).await;
        }
    });
}

async fn run_once(state: &StateDir, component: &Component) {
    let pid_file = state.pid_file(component.name);
    match start(state, component) {
        Ok(mut child) => {
            if let Some(pid) = child.id() {
                // Tests find the process by this file; without it they say so themselves.
                let _ = std::fs::write(&pid_file, pid.to_string());
                info!(component = component.name, pid, "Component started");
            }
            let status = child.wait().await;
            let _ = std::fs::remove_file(&pid_file);
            let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
            warn!(component = component.name, ?status, signal, "Component ended");
        }
        Err(error) => warn!(component = component.name, %error, "Component cannot be started"),
    }
}

fn start(state: &StateDir, component: &Component) -> std::io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.log(component.name))?;
    Command::new(&component.program)
        .args(&component.args)
        .envs(component.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
