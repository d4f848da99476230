//! Broker, Envoy and fixture servers, wired.

use crate::client::Client;
use crate::envoy::{self, Envoy, Plan};
use crate::fixture::Server;
use mcp_gateway_broker::kubernetes::secret::ClusterAccess;
use mcp_gateway_broker::options::{self, Command, Options};
use mcp_gateway_broker::run::bounds::Bounds;
use mcp_gateway_broker::run::{self, Environment, Running};
use mcp_gateway_broker::transport::address::AddressPolicy;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::time::Instant;

pub const PUBLIC: &str = "mcp.test";
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

pub struct World {
    pub running: Option<Running>,
    pub envoy: Option<Envoy>,
    pub port: u16,
    pub broker: SocketAddr,
    pub folder: tempfile::TempDir,
}

/// True when the suite runs without Envoy: `MCPGW_DATA_PATH=direct` lets the front forward calls itself.
pub fn is_direct() -> bool {
    std::env::var("MCPGW_DATA_PATH").is_ok_and(|path| path == "direct")
}

/// Waits until `check` gives a value, for 20 seconds at most.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    eventually_within(Duration::from_secs(20), what, check).await
}

/// Waits until `check` gives a value.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that nothing uses now and that nobody else gets: below the ports that the kernel gives out by itself, and each
/// one once. Two tests on one port would answer each other's clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 100) as u16 * 100;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One line of the config for a server.
pub fn entry(server: &Server, prefix: &str) -> String {
    let (name, url) = (server.name, server.url());
    format!(
        "- {{name: ns/{name}, url: '{url}', hostname: {name}.mcp.test, prefix: '{prefix}', createdAt: '2026-01-01T00:00:00Z', uid: {name}}}\n"
    )
}

pub fn config(entries: &[String]) -> String {
    format!(
        "servers:\n{}virtualServers: []\n",
        if entries.is_empty() {
            "  []\n".to_owned()
        } else {
            entries.concat()
        }
    )
}

fn options(port: u16, file: &Path, flags: &[&str]) -> Options {
    let fixed = [
        format!("--mcp-gateway-public-host={PUBLIC}"),
        format!("--mcp-gateway-private-host=127.0.0.1:{port}"),
        format!("--mcp-gateway-config={}", file.display()),
        "--mcp-broker-public-address=127.0.0.1:0".to_owned(),
        "--mcp-router-address=127.0.0.1:0".to_owned(),
        "--metrics-addr=127.0.0.1:0".to_owned(),
        format!("--gateway-signing-key={KEY}"),
    ];
    // Lists hold what the servers list, unless a test is about the gateway's own tools.
    let own_tools = "--discovery-tools-enabled";
    let asked = flags.iter().any(|flag| flag.starts_with(own_tools));
    let own_tools = (!asked).then(|| format!("{own_tools}=false"));
    let words = fixed
        .into_iter()
        .chain(own_tools)
        .chain(flags.iter().map(|flag| (*flag).to_owned()))
        .filter(|word| !word.starts_with("env:"));
    // `env:NAME=value` among the flags is a variable of the environment.
    let variable = |name: &str| {
        let prefix = format!("env:{name}=");
        flags
            .iter()
            .find_map(|flag| flag.strip_prefix(&prefix).map(str::to_owned))
    };
    match options::parse(words, &variable).unwrap() {
        Command::Run(options) => *options,
        Command::Print(text) => panic!("{text}"),
        Command::Example(_) | Command::Child(..) => panic!("another program"),
    }
}

impl World {
    /// Everything, with Envoy.
    pub async fn start(servers: &[(&Arc<Server>, &str)], flags: &[&str]) -> Self {
        let entries: Vec<String> = servers
            .iter()
            .map(|(server, prefix)| entry(server, prefix))
            .collect();
        let servers: Vec<&Arc<Server>> = servers.iter().map(|(server, _)| *server).collect();
        Self::start_with(&config(&entries), &servers, flags).await
    }

    pub async fn start_with(config: &str, servers: &[&Arc<Server>], flags: &[&str]) -> Self {
        if is_direct() {
            let flags: Vec<&str> = flags.iter().copied().chain(["--data-path=direct"]).collect();
            return Self::broker_only(config, &flags).await;
        }
        let mut world = Self::broker_only(config, flags).await;
        world.envoy = Some(world.envoy(servers, |_| {}).await);
        world
    }

    /// An Envoy before the broker, whose configuration is changed before it starts.
    pub async fn envoy(
        &self,
        servers: &[&Arc<Server>],
        change: impl FnOnce(&mut serde_json::Value),
    ) -> Envoy {
        let router = self.running.as_ref().unwrap().router.unwrap();
        let names: Vec<String> = servers
            .iter()
            .map(|server| format!("{}.mcp.test", server.name))
            .collect();
        let hosts: Vec<(&str, SocketAddr)> = names
            .iter()
            .zip(servers)
            .map(|(name, server)| (name.as_str(), server.address))
            .collect();
        let plan = Plan {
            listen: self.port,
            router,
            broker: self.broker,
            public_host: PUBLIC,
            hosts: &hosts,
            body_limit: 5_242_880,
            tls: None,
        };
        let mut bootstrap = envoy::bootstrap(&plan);
        change(&mut bootstrap);
        Envoy::start_with(&bootstrap, self.port).await
    }

    /// The broker without an Envoy.
    pub async fn broker_only(config: &str, flags: &[&str]) -> Self {
        Self::broker_at(free_port(), config, flags).await
    }

    /// The broker without an Envoy, whose private host has this port unless a flag says otherwise.
    pub async fn broker_at(port: u16, config: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config).unwrap();
        let environment = Self::environment(None);
        Self::broker_in(environment, port, folder, flags).await
    }

    pub fn environment(cluster: Option<ClusterAccess>) -> Environment {
        let watch_grace = Duration::from_millis(300);
        Environment {
            addresses: AddressPolicy::Unchecked,
            endpoint_removal: Duration::ZERO,
            cluster,
            watch_grace,
            bounds: Bounds::default(),
        }
    }

    /// A broker whose config file is in `folder`.
    pub async fn broker_in(
        environment: Environment,
        port: u16,
        folder: tempfile::TempDir,
        flags: &[&str],
    ) -> Self {
        let file = folder.path().join("config.yaml");
        let running = run::start(options(port, &file, flags), environment)
            .await
            .unwrap();
        let broker = running.broker;
        let world = Self {
            running: Some(running),
            envoy: None,
            port,
            broker,
            folder,
        };
        world.ready().await;
        world
    }

    async fn ready(&self) {
        let url = format!("http://{}/readyz", self.broker);
        eventually("readiness", || async {
            reqwest::get(&url)
                .await
                .ok()
                .filter(|answer| answer.status() == 200)
                .map(drop)
        })
        .await;
    }

    pub fn write_config(&self, text: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.folder.path().join("config.yaml")).unwrap();
    }

    /// A client through Envoy, or of the front that forwards.
    pub fn client(&self) -> Client {
        if is_direct() {
            return self.direct();
        }
        Client::new(format!("http://127.0.0.1:{}", self.port))
    }

    /// A client of the broker itself.
    pub fn direct(&self) -> Client {
        Client::new(format!("http://{}", self.broker))
    }

    pub async fn status(&self) -> serde_json::Value {
        reqwest::get(format!("http://{}/status", self.broker))
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    pub async fn status_of(&self, server: &str) -> serde_json::Value {
        let status = self.status().await;
        status["servers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["name"] == format!("ns/{server}"))
            .cloned()
            .unwrap_or_default()
    }
}
