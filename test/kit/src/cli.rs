//! The command line of `kit`: arguments, and which part does the work.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::binaries::{self, Binaries};
use crate::cache::Cache;
use crate::inside::Plan;
use crate::node::rootfs::{ContainerPlan, become_container};
use crate::progress::say;
use crate::state_dir::StateDir;
use crate::{doctor, init, inside, sandbox, selftest};

/// How many directories of failed runs are kept.
const KEPT_RUNS: usize = 5;

/// A real control plane, Istio and Envoy in a sandbox, with pods as processes.
#[derive(Debug, Parser)]
#[command(name = "kit", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Check what this machine needs; says in one sentence each what to install.
    Doctor,
    /// Build and fetch everything that the sandbox runs, once; or only the named ITEMs, whose directories are printed.
    Build {
        /// etcd, kubernetes, istiod, envoy, redis, gateway-api-crds, istio-crds, server-everything or python-mcp.
        items: Vec<String>,
    },
    /// Boot a sandbox, run COMMAND in it, and tear it down. The exit code is COMMAND's.
    Run(Run),
    /// Boot a sandbox and keep it until SIGINT or `kit down`.
    Up(Place),
    /// End a kept sandbox.
    Down(Place),
    /// Run COMMAND in a kept sandbox.
    Exec(Exec),
    /// More ports of this machine for the Gateways of a kept sandbox, until SIGINT; the first is
    /// `GATEWAY_LOCAL_PORT_HTTP_MCP`.
    Forward(Place),
    /// Inside a sandbox: a Gateway, a server, a route, and an answer through Envoy.
    Selftest,
    #[command(hide = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    #[command(hide = true)]
    Inside(Inside),
    #[command(hide = true)]
    Container { plan: PathBuf },
}

#[derive(Debug, Args)]
struct Run {
    /// Keep the sandbox when COMMAND has ended, until SIGINT or `kit down`.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: Place,
    /// What to run; its environment has KUBECONFIG and MCPGW_KIT_DIR, its PATH kubectl.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Exec {
    #[command(flatten)]
    place: Place,
    /// What to run.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Place {
    /// State directory: logs, sockets, kubeconfig. Default: a directory in the cache.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where the project's programs are. Default: beside this program.
    #[arg(long, env = "MCPGW_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Inside {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    bin_dir: PathBuf,
    #[arg(long)]
    cache: PathBuf,
    #[arg(long)]
    keep: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Does what the arguments say. The exit code is 0, that of the command which was run, or 1 after an error, which is
/// printed in one line.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            say(format!("kit: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Sub) -> anyhow::Result<ExitCode> {
    match command {
        Sub::Container { plan } => {
            let plan: ContainerPlan = serde_json::from_slice(&std::fs::read(plan)?)?;
            Err(become_container(&plan).into())
        }
        Sub::Init { args } => Ok(init::run(&args)?),
        other => {
            // Two providers may be compiled in; whoever comes first has chosen this one.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let code = runtime.block_on(asynchronous(other));
            runtime.shutdown_background();
            code
        }
    }
}

async fn asynchronous(command: Sub) -> anyhow::Result<ExitCode> {
    match command {
        Sub::Doctor => {
            doctor::check(true)?;
            say("everything that the kit needs is here");
        }
        Sub::Build { items } if items.is_empty() => drop(build()?),
        Sub::Build { items } => build_items(&items)?,
        Sub::Run(run) => return start(&run.place, run.keep, run.command).await,
        Sub::Up(place) => return start(&place, true, Vec::new()).await,
        Sub::Down(place) => sandbox::down(&kept_dir(&place)?).await?,
        Sub::Exec(exec) => {
            return Ok(sandbox::exec(&kept_dir(&exec.place)?, &exec.command)
                .await?
                .into());
        }
        Sub::Forward(place) => {
            let dir = kept_dir(&place)?;
            sandbox::find(&dir)?;
            crate::forward::open_listeners(&StateDir::new(dir)).await?;
        }
        Sub::Selftest => selftest::run().await?,
        Sub::Inside(inside) => {
            let plan = Plan {
                state: StateDir::new(inside.dir),
                bin_dir: inside.bin_dir,
                cache: inside.cache,
                keep: inside.keep,
                command: inside.command,
            };
            return Ok(inside::run(&plan).await?.into());
        }
        // Handled before a runtime exists.
        Sub::Init { .. } | Sub::Container { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn build() -> anyhow::Result<(Cache, Binaries)> {
    let cache = Cache::from_env()?;
    doctor::check(!binaries::is_complete(&cache))?;
    let binaries = binaries::build(&cache)?;
    Ok((cache, binaries))
}

/// Makes the named items and prints the directory of each on standard output.
fn build_items(names: &[String]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let cache = Cache::from_env()?;
    doctor::check(!binaries::is_complete(&cache))?;
    for name in names {
        let dir = binaries::build_item(&cache, name)?;
        writeln!(std::io::stdout(), "{}", dir.display())?;
    }
    Ok(())
}

fn kept_dir(place: &Place) -> anyhow::Result<PathBuf> {
    match &place.dir {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => Ok(Cache::from_env()?.root().join("sandbox/kept")),
    }
}

async fn start(place: &Place, keep: bool, command: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if let Some(code) = given_cluster(&command).await? {
        return Ok(code);
    }
    let (cache, binaries) = build()?;
    prune(&cache);
    let temporary = place.dir.is_none() && !keep;
    let dir = if temporary {
        cache.root().join(format!("sandbox/run-{}", std::process::id()))
    } else {
        kept_dir(place)?
    };
    if sandbox::find(&dir).is_ok() {
        anyhow::bail!(
            "a sandbox runs in {} already; end it with `kit down`",
            dir.display()
        );
    }
    clear(&dir)?;
    let bin_dir = match &place.bin_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::current_exe()?
            .parent()
            .context("this program has no directory")?
            .to_owned(),
    };
    let plan = Plan {
        state: StateDir::new(dir.clone()),
        bin_dir,
        cache: cache.root().to_owned(),
        keep,
        command,
    };
    let code = sandbox::run(&plan, &binaries).await?;
    if temporary && code == 0 {
        std::fs::remove_dir_all(&dir)?;
    } else if code != 0 {
        say(format!("kit: logs are in {}", dir.join("logs").display()));
    }
    Ok(code.into())
}

/// Removes the oldest directories of failed runs; the newest few stay for whoever reads their logs.
fn prune(cache: &Cache) {
    let entries = std::fs::read_dir(cache.root().join("sandbox"))
        .into_iter()
        .flatten()
        .flatten();
    let mut dead: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"))
        .filter(|entry| sandbox::find(&entry.path()).is_err())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        // A sandbox that boots has no processes on record yet.
        .filter(|(changed, _)| changed.elapsed().is_ok_and(|age| age > Duration::from_secs(600)))
        .collect();
    dead.sort();
    dead.truncate(dead.len().saturating_sub(KEPT_RUNS));
    for (_, dir) in dead {
        // Another run may be at it.
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Removes what a sandbox before left in `dir`; refuses a directory that is not a sandbox's.
fn clear(dir: &Path) -> anyhow::Result<()> {
    let Ok(mut entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    if entries.next().is_some() && !StateDir::new(dir.to_owned()).binaries().exists() {
        anyhow::bail!("{} is not empty and no sandbox's directory", dir.display());
    }
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

/// With `MCPGW_USE_KUBECONFIG=1` nothing is started: the command runs against the cluster of `KUBECONFIG`.
async fn given_cluster(command: &[OsString]) -> anyhow::Result<Option<ExitCode>> {
    if std::env::var_os("MCPGW_USE_KUBECONFIG").is_none_or(|value| value != "1") {
        return Ok(None);
    }
    let kubeconfig = std::env::var("KUBECONFIG").context("MCPGW_USE_KUBECONFIG=1 needs KUBECONFIG")?;
    say(format!(
        "kit: using the cluster of {kubeconfig}; nothing is started"
    ));
    let Some((program, args)) = command.split_first() else {
        return Ok(Some(ExitCode::SUCCESS));
    };
    let status = tokio::process::Command::new(program).args(args).status().await?;
    Ok(Some(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).into()))
}
