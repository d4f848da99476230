//! Life inside the sandbox: boots everything, runs the command, and ends. The kernel cleans up behind it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::mount::mount_bind;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::Binaries;
use crate::cache::Cache;
use crate::control_plane::{self, NODE_ADDRESS};
use crate::node::images::ImageTable;
use crate::node::network::{AddressPool, ip_batch};
use crate::node::{self, Node};
use crate::objects::Objects;
use crate::progress::{Step, say, start_line};
use crate::sandbox::INTERRUPTED;
use crate::state_dir::StateDir;
use crate::{forward, gateways, hosts, kubelet};

/// How long the command may take to end after it was told to.
const COMMAND_GRACE: Duration = Duration::from_secs(10);

const BOOT: &str = "Booting etcd, the API server, the controllers and Istio";

/// What the process outside wants.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) state: StateDir,
    pub(crate) bin_dir: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) keep: bool,
    pub(crate) command: Vec<OsString>,
}

/// Boots, runs the command, and returns its exit code.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<u8> {
    start_log(&plan.state)?;
    let outside = UnixStream::connect(plan.state.life_socket())
        .await
        .context("connect to the process outside")?;
    let mut end = Box::pin(told_to_end(outside)?);
    tokio::select! {
        booted = boot(plan) => booted?,
        () = &mut end => return Ok(INTERRUPTED),
    }
    std::fs::write(plan.state.ready(), "")?;
    let mut code = 0;
    if !plan.command.is_empty() {
        let mut child = spawn(plan)?;
        tokio::select! {
            status = child.wait() => code = exit_code(status?),
            () = &mut end => return finish(child).await,
        }
    }
    if plan.keep {
        if code != 0 {
            say(format!(
                "kit: the command ended with exit code {code}; the sandbox is kept"
            ));
        }
        end.await;
    }
    Ok(code)
}

async fn boot(plan: &Plan) -> anyhow::Result<()> {
    let cache = Cache::at(&plan.cache)?;
    say(start_line(BOOT, cache.last_duration("boot")));
    let whole = Step::quiet("control plane up");
    let state = &plan.state;
    let binaries: Binaries = serde_json::from_slice(&std::fs::read(state.binaries())?)?;
    network().await?;
    hosts::write_in_place(&state.hosts(), "127.0.0.1 localhost\n")?;
    mount_bind(state.hosts(), "/etc/hosts").context("bind mount over /etc/hosts")?;
    let client = control_plane::start(state, &binaries).await?;
    node::register(&client).await.context("register the node")?;
    let objects = Objects::watch(&client);
    tokio::spawn(hosts::keep(state.clone(), objects.clone()));
    let mut visible = vec![plan.cache.clone(), plan.bin_dir.clone()];
    visible.extend(
        binaries
            .servers
            .python
            .parent()
            .and_then(|bin| bin.parent())
            .map(PathBuf::from),
    );
    let node = Arc::new(Node {
        client: client.clone(),
        state: state.clone(),
        objects,
        images: ImageTable::new(&plan.bin_dir, &binaries, state.images()),
        pool: AddressPool::default(),
        kit: std::env::current_exe()?,
        visible,
        http: reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?,
    });
    tokio::spawn(node::play(node));
    serve("kubelet API", kubelet::serve(state.clone()));
    serve("forwarding", forward::serve(state.clone()));
    control_plane::install(&client, &binaries).await?;
    tokio::spawn(gateways::play(client, state.clone()));
    cache.remember_duration("boot", whole.done());
    Ok(())
}

/// Runs a server in the background; its end is an error in the log, not the end of the sandbox.
fn serve(what: &'static str, server: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(what, %error, "Server ended");
        }
    });
}

/// The node's address, and forwarding between pods.
async fn network() -> anyhow::Result<()> {
    let commands = format!("link set lo up\naddr add {NODE_ADDRESS}/32 dev lo\n");
    ip_batch("of the node", &["ip", "-batch", "-"], &commands).await?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switch IP forwarding on")
}

fn spawn(plan: &Plan) -> anyhow::Result<Child> {
    let (program, args) = plan.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(environment(&plan.state))
        .kill_on_drop(true);
    command
        .spawn()
        .with_context(|| format!("start {}", program.to_string_lossy()))
}

/// What a command in the sandbox finds in its environment.
pub(crate) fn environment(state: &StateDir) -> Vec<(&'static str, OsString)> {
    let (mut path, mut found) = (OsString::new(), Vec::new());
    if let Ok(binaries) = std::fs::read(state.binaries())
        && let Ok(binaries) = serde_json::from_slice::<Binaries>(&binaries)
    {
        if let Some(dir) = binaries.kubectl.parent() {
            path.push(dir);
            path.push(":");
        }
        found = binaries.servers.environment();
    }
    path.push(std::env::var_os("PATH").unwrap_or_default());
    found.extend([
        ("KUBECONFIG", state.kubeconfig().into_os_string()),
        ("MCPGW_KIT_DIR", state.root().as_os_str().to_owned()),
        ("PATH", path),
        // Nothing leaves the sandbox: a proxy of the machine cannot be reached.
        ("NO_PROXY", OsString::from("*")),
        ("no_proxy", OsString::from("*")),
    ]);
    found
}

async fn finish(mut child: Child) -> anyhow::Result<u8> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        node::process::kill(pid, rustix::process::Signal::TERM);
    }
    let _ = tokio::time::timeout(COMMAND_GRACE, child.wait()).await;
    Ok(INTERRUPTED)
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Resolves at SIGINT, SIGTERM, or when the process outside is gone.
fn told_to_end(mut outside: UnixStream) -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let mut byte = [0];
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = outside.read(&mut byte) => {}
        }
    })
}

fn start_log(state: &StateDir) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.log("kit"))?;
    let filter = tracing_subscriber::EnvFilter::new("info,kube_client=error");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second log in one process happens only in tests.
    let _ = log.with_writer(std::sync::Mutex::new(file)).try_init();
    Ok(())
}
