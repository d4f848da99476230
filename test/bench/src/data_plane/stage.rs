//! Everything that takes part, each a process of its own, ended when the stage is dropped.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, ensure};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{
    envoy,
    load::{Connection, Load, Pace, Shot, run},
};
use crate::clock::{memory_of, process_cpu};

/// The host of clients.
pub(crate) const PUBLIC_HOST: &str = "mcp.test";
/// Folder of the config: it is watched, and the logs beside it would wake who watches.
const CONFIG: &str = "config";
const START_TIME: Duration = Duration::from_secs(60);
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Worker threads of the gateways; their own choice when it is not set.
pub(crate) static WORKERS: OnceLock<usize> = OnceLock::new();

/// What is staged.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// MCP servers.
    pub(crate) servers: usize,
    /// Tools of each.
    pub(crate) tools: usize,
    /// Flags of the mock.
    pub(crate) mock: Vec<String>,
    /// Flags of the gateways.
    pub(crate) flags: Vec<String>,
    /// Members of the config document beside `servers`.
    pub(crate) config: Value,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            servers: 1,
            tools: 50,
            mock: Vec::new(),
            flags: Vec::new(),
            config: json!({"virtualServers": []}),
        }
    }
}

/// One process.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// This program with other arguments.
    pub(crate) fn own(folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(workers) = WORKERS
            .get()
            .filter(|_| arguments.first().is_some_and(|part| part == "broker"))
        {
            command.env("TOKIO_WORKER_THREADS", workers.to_string());
        }
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child })
    }

    /// Process id.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process ended")
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process_cpu(self.id()?)
    }

    /// Resident memory, bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        memory_of(self.id()?)
    }
}

/// The addresses of one gateway process.
#[derive(Clone, Copy, Debug)]
struct Ports {
    /// HTTP of broker and front.
    http: SocketAddr,
    /// gRPC of the router.
    router: SocketAddr,
}

/// The stage.
pub(crate) struct Stage {
    /// Name of the process in the table, and the process.
    pub(crate) programs: BTreeMap<&'static str, Program>,
    /// Envoy's listeners and what is behind them.
    pub(crate) at: envoy::Plan,
    /// The bare hop.
    pub(crate) hop: SocketAddr,
    setting: Setting,
    folder: tempfile::TempDir,
}

/// An address that nobody listens on now.
pub(crate) fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join(CONFIG).join("config.yaml")
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn addresses() -> anyhow::Result<envoy::Plan> {
    Ok(envoy::Plan {
        plain: free()?,
        no_op: free()?,
        gateway: free()?,
        direct: free()?,
        mock: free()?,
        no_op_processor: free()?,
        router: free()?,
        broker: free()?,
        front: free()?,
    })
}

/// What is started of this program, by name.
fn commands(
    folder: &Path,
    setting: &Setting,
    (at, hop): (&envoy::Plan, SocketAddr),
) -> anyhow::Result<[(&'static str, Vec<String>); 5]> {
    let listen = |part: &str, address: SocketAddr| words([part, "--listen", &address.to_string()]);
    let mut mock = listen("mock", at.mock);
    mock.extend(words(["--tools", &setting.tools.to_string()]));
    mock.extend(setting.mock.iter().cloned());
    let mut bare = listen("hop", hop);
    bare.extend(words(["--to", &format!("http://{}/s/0/mcp", at.mock)]));
    let ext_proc = Ports {
        http: at.broker,
        router: at.router,
    };
    let direct = Ports {
        http: at.front,
        router: free()?,
    };
    let mut flags = setting.flags.clone();
    flags.push("--data-path=direct".to_owned());
    Ok([
        ("mock", mock),
        ("no-op", listen("no-op", at.no_op_processor)),
        ("hop", bare),
        ("router", broker(folder, ext_proc, at.gateway, &setting.flags)),
        ("front", broker(folder, direct, at.direct, &flags)),
    ])
}

impl Stage {
    /// Starts everything and waits until both gateways serve every server.
    pub(crate) async fn set(setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = addresses()?;
        let hop = free()?;
        let config = document(&setting, at.mock, setting.servers);
        std::fs::create_dir(folder.path().join(CONFIG))?;
        std::fs::write(config_file(folder.path()), config.to_string())?;
        let mut programs = BTreeMap::new();
        for (name, arguments) in commands(folder.path(), &setting, (&at, hop))? {
            programs.insert(name, Program::own(folder.path(), name, &arguments)?);
        }
        let envoy = envoy::start(folder.path(), &at)?;
        programs.insert("envoy", Program { child: envoy });
        let listeners = [at.plain, at.no_op, at.gateway, at.direct];
        for address in [at.mock, hop, at.no_op_processor, at.broker, at.front]
            .into_iter()
            .chain(listeners)
        {
            listening(address).await?;
        }
        let stage = Self {
            programs,
            at,
            hop,
            setting,
            folder,
        };
        stage.served(stage.setting.servers).await?;
        Ok(stage)
    }

    /// Waits until both gateways report so many ready servers.
    pub(crate) async fn served(&self, servers: usize) -> anyhow::Result<()> {
        for http in [self.at.broker, self.at.front] {
            eventually(START_TIME, "every server to be ready", async || {
                let ready = ready_servers(http).await.map_err(|error| format!("{error:#}"))?;
                if ready == servers {
                    Ok(())
                } else {
                    Err(format!("{ready} of {servers}"))
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Writes a config with so many servers, by rename as the kubelet does.
    pub(crate) fn write_servers(&self, servers: usize) -> anyhow::Result<()> {
        let next = self.folder.path().join("next");
        std::fs::write(&next, document(&self.setting, self.at.mock, servers).to_string())?;
        Ok(std::fs::rename(next, config_file(self.folder.path()))?)
    }

    /// Runs a load; returns it with the CPU time that each program spent.
    pub(crate) async fn load(
        &self,
        shots: Vec<Shot>,
        length: Duration,
        pace: Pace,
    ) -> anyhow::Result<(Load, BTreeMap<&'static str, Duration>)> {
        let before = self.cpu()?;
        let load = run(shots, length, pace).await?;
        ensure!(
            !load.latencies.is_empty(),
            "nothing was answered: {}",
            load.failure.as_deref().unwrap_or("no failure either")
        );
        let after = self.cpu()?;
        let spent = after
            .into_iter()
            .map(|(name, time)| {
                (
                    name,
                    time.saturating_sub(before.get(name).copied().unwrap_or_default()),
                )
            })
            .collect();
        Ok((load, spent))
    }

    fn cpu(&self) -> anyhow::Result<BTreeMap<&'static str, Duration>> {
        self.programs
            .iter()
            .map(|(name, program)| Ok((*name, program.cpu()?)))
            .collect()
    }

    /// One of the programs.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<&Program> {
        self.programs
            .get(name)
            .with_context(|| format!("no program {name}"))
    }
}

/// Waits until somebody listens.
pub(crate) async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let open = async || {
        Connection::open(address)
            .await
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    };
    Ok(eventually(START_TIME, &format!("a listener at {address}"), open).await?)
}

async fn ready_servers(http: SocketAddr) -> anyhow::Result<usize> {
    let answer = Connection::open(http).await?.get("/status").await?;
    let status: Value = serde_json::from_slice(&answer.body)?;
    let servers = status
        .get("servers")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    Ok(servers
        .iter()
        .filter(|server| server.get("ready") == Some(&Value::Bool(true)))
        .count())
}

/// Flags of one gateway process, which runs the same code as `mcp-gateway-broker`.
fn broker(folder: &Path, at: Ports, listener: SocketAddr, more: &[String]) -> Vec<String> {
    let mut flags = vec![
        "broker".to_owned(),
        "--".to_owned(),
        format!("--mcp-gateway-public-host={PUBLIC_HOST}"),
        format!("--mcp-gateway-private-host={listener}"),
        format!("--mcp-gateway-config={}", config_file(folder).display()),
        format!("--mcp-broker-public-address={}", at.http),
        format!("--mcp-router-address={}", at.router),
        "--metrics-addr=127.0.0.1:0".to_owned(),
        format!("--gateway-signing-key={KEY}"),
        "--discovery-tools-enabled=false".to_owned(),
    ];
    flags.extend(more.iter().cloned());
    flags
}

fn document(setting: &Setting, mock: SocketAddr, servers: usize) -> Value {
    let server = |number: usize| {
        json!({
            "name": format!("bench/s{number}"), "url": format!("http://{mock}/s/{number}/mcp"), "hostname": format!("s{number}.mock.test"),
            "prefix": format!("s{number}_"), "createdAt": "2026-01-01T00:00:00Z", "uid": format!("s{number}"),
        })
    };
    let mut document = setting.config.clone();
    if let Some(members) = document.as_object_mut() {
        members.insert("servers".to_owned(), (0..servers).map(server).collect());
    }
    document
}
