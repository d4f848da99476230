//! One container: made ready, started, probed, started again when it ends, stopped when the pod ends.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Lifecycle};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::node::env::{EnvError, command_line, environment};
use crate::node::images::ImageError;
use crate::node::pod::PodContext;
use crate::node::probes::{self, Outcome, Target};
use crate::node::process::kill_group;
use crate::node::rootfs::{ContainerPlan, Mount};
use crate::node::volumes::mount_source;

/// The longest pause before a crashed container is started again. A kubelet's is 5 minutes: tests have no such time.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A container that ran this long starts its back-off anew.
const STABLE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);

/// Why a container cannot be started now.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error("volume mount {0:?} names no volume of the pod")]
    NoVolume(String),
    #[error("{0}")]
    Files(#[from] std::io::Error),
    #[error("plan: {0}")]
    Plan(#[from] serde_json::Error),
}

impl PrepareError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Image(_) => "ErrImagePull",
            Self::Env(_) | Self::NoVolume(_) => "CreateContainerConfigError",
            Self::Files(_) | Self::Plan(_) => "CreateContainerError",
        }
    }
}

/// Pauses between starts: none first, then 1 s, doubled up to [`LONGEST_BACKOFF`].
#[derive(Debug, Default)]
struct Backoff {
    pause: Duration,
}

impl Backoff {
    fn next(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE {
            self.pause = Duration::ZERO;
        }
        let pause = self.pause;
        self.pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_BACKOFF);
        pause
    }
}

/// Runs the container until the pod ends or its restart policy is satisfied. Returns the last exit code, if it ended by
/// itself.
pub(crate) async fn keep_running(pod: &PodContext, container: &Container, init: bool) -> Option<i32> {
    let name = &container.name;
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        match start(pod, container).await {
            Err(error) => {
                pod.board.waiting(name, error.reason(), &error.to_string());
                if pod.pause(RETRY).await {
                    return None;
                }
                continue;
            }
            Ok(child) => {
                let code = run(pod, container, child).await;
                if pod.stop.is_cancelled() {
                    return None;
                }
                if !restarts(pod.restart_policy(), init, code) {
                    return Some(code);
                }
            }
        }
        let pause = backoff.next(begun.elapsed());
        if !pause.is_zero() {
            let message = format!(
                "back-off {} s restarting failed container={name}",
                pause.as_secs()
            );
            pod.board.waiting(name, "CrashLoopBackOff", &message);
        }
        if pod.pause(pause).await {
            return None;
        }
    }
}

fn restarts(policy: &str, init: bool, code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ if init => code != 0,
        _ => true,
    }
}

async fn start(pod: &PodContext, container: &Container) -> Result<Child, PrepareError> {
    let plan = plan(pod, container).await?;
    let file = pod.dir.join(format!("{}.json", container.name));
    std::fs::write(&file, serde_json::to_vec(&plan)?)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(pod.log(&container.name))?;
    let child = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", pod.network_pid))
        .args(["unshare", "--uts", "--mount", "--propagation", "private"])
        .arg(&pod.node.kit)
        .arg("container")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn plan(pod: &PodContext, container: &Container) -> Result<ContainerPlan, PrepareError> {
    let image = pod
        .node
        .images
        .find(container.image.as_deref().unwrap_or_default())?;
    let env = environment(&pod.pod, container, &image, &pod.node.objects, &pod.fields)?;
    let root = pod.dir.join("root").join(&container.name);
    std::fs::create_dir_all(&root)?;
    let working_dir = container
        .working_dir
        .clone()
        .unwrap_or_else(|| image.working_dir.clone());
    let read_only = container
        .security_context
        .as_ref()
        .and_then(|context| context.read_only_root_filesystem);
    Ok(ContainerPlan {
        root,
        read_only: read_only == Some(true),
        visible: pod.node.visible.clone(),
        hosts: pod.node.state.hosts(),
        host_name: pod.name().to_owned(),
        links: image
            .files
            .iter()
            .map(|(path, target)| (PathBuf::from(path), target.clone()))
            .collect(),
        mounts: mounts(pod, container).await?,
        working_dir: PathBuf::from(if working_dir.is_empty() { "/" } else { &working_dir }),
        command: command_line(container, &image, &env)?,
        env,
    })
}

async fn mounts(pod: &PodContext, container: &Container) -> Result<Vec<Mount>, PrepareError> {
    let volumes = pod.volumes.lock().await;
    let spec = pod.pod.spec.as_ref();
    let known: Vec<&str> = spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .map(|volume| volume.name.as_str())
        .collect();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        if !known.contains(&mount.name.as_str()) {
            return Err(PrepareError::NoVolume(mount.name.clone()));
        }
        let volume = spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .find(|it| it.name == mount.name);
        // Everything but an emptyDir is read-only, whatever the mount says.
        let writable = volume.is_some_and(|volume| volume.empty_dir.is_some());
        mounts.push(Mount {
            source: mount_source(&volumes.path(&mount.name), mount),
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || !writable,
        });
    }
    // Parents before what is mounted inside them.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// Runs a started container to its end, however it comes. Returns its exit code (128 + signal when killed).
async fn run(pod: &PodContext, container: &Container, mut child: Child) -> i32 {
    let name = &container.name;
    let Some(pid) = child.id() else { return 1 };
    let pid_file = pod.pid_file(name);
    // Tests find the process by this file; without it they say so themselves.
    let _ = std::fs::write(&pid_file, pid.to_string());
    pod.board
        .running(name, &format!("kit://{}/{name}/{pid}", pod.uid()));
    info!(pod = pod.name(), container = name, pid, "Container started");
    let ended = tokio::select! {
        status = child.wait() => status,
        () = pod.stop.cancelled() => stop(pod, container, &mut child, pid).await,
        reason = probe(pod, container, pid) => {
            warn!(pod = pod.name(), container = name, reason, "Container is killed by its probe");
            stop(pod, container, &mut child, pid).await
        }
    };
    // Whatever the main process left behind in its group.
    kill_group(pid, Signal::KILL);
    let _ = std::fs::remove_file(&pid_file);
    let (code, signal) = exit(ended.ok());
    info!(pod = pod.name(), container = name, code, "Container ended");
    pod.board.terminated(name, code, signal);
    code
}

fn exit(status: Option<ExitStatus>) -> (i32, Option<i32>) {
    let signal = status.and_then(|status| status.signal());
    let code = status
        .and_then(|status| status.code())
        .unwrap_or(128 + signal.unwrap_or(0));
    (code, signal)
}

/// preStop hook, SIGTERM, grace, SIGKILL.
async fn stop(
    pod: &PodContext,
    container: &Container,
    child: &mut Child,
    pid: u32,
) -> std::io::Result<ExitStatus> {
    let deadline = Instant::now() + pod.grace();
    // The hook's time is part of the grace period.
    let _ = tokio::time::timeout_at(deadline, pre_stop(container.lifecycle.as_ref(), pid)).await;
    kill_group(pid, Signal::TERM);
    if let Ok(status) = tokio::time::timeout_at(deadline, child.wait()).await {
        return status;
    }
    kill_group(pid, Signal::KILL);
    child.wait().await
}

async fn pre_stop(lifecycle: Option<&Lifecycle>, pid: u32) {
    let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return;
    };
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    } else if let Some(exec) = &hook.exec
        && let Err(error) = probes::run_inside(pid, exec.command.as_deref().unwrap_or_default()).await
    {
        warn!(error, "preStop hook failed");
    }
}

/// Probes the container; returns only when it must be killed, with the reason.
async fn probe(pod: &PodContext, container: &Container, pid: u32) -> String {
    let target = Target {
        address: pod.address,
        pid,
        http: pod.node.http.clone(),
    };
    let name = &container.name;
    if let Some(startup) = &container.startup_probe {
        let mut failure = None;
        probes::watch(startup, container, &target, true, |outcome, message| {
            failure = (outcome == Outcome::Failure).then(|| format!("startup probe failed: {message}"));
            false
        })
        .await;
        if let Some(reason) = failure {
            return reason;
        }
    }
    pod.board.record(name, |record| {
        record.started = true;
        record.ready = container.readiness_probe.is_none();
    });
    let readiness = async {
        match &container.readiness_probe {
            Some(probe) => {
                probes::watch(probe, container, &target, true, |outcome, message| {
                    info!(
                        pod = pod.name(),
                        container = name,
                        ?outcome,
                        message,
                        "Readiness changed"
                    );
                    pod.board
                        .record(name, |record| record.ready = outcome == Outcome::Success);
                    true
                })
                .await;
            }
            None => std::future::pending().await,
        }
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else {
            return std::future::pending().await;
        };
        let mut reason = String::new();
        probes::watch(probe, container, &target, false, |outcome, message| {
            reason = format!("liveness probe failed: {message}");
            outcome == Outcome::Success
        })
        .await;
        reason
    };
    tokio::select! {
        () = readiness => "readiness probe ended".to_owned(),
        reason = liveness => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap_and_forgets_after_a_long_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(5);
        let pauses: Vec<u64> = (0..7).map(|_| backoff.next(short).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.next(STABLE), Duration::ZERO);
    }

    #[test]
    fn restart_policies_are_those_of_kubernetes() {
        assert!(restarts("Always", false, 0));
        assert!(!restarts("Always", true, 0));
        assert!(restarts("Always", true, 1));
        assert!(restarts("OnFailure", false, 1));
        assert!(!restarts("OnFailure", false, 0));
        assert!(!restarts("Never", false, 1));
    }
}
