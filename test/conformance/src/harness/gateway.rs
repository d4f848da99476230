//! A gateway without Kubernetes: fixtures and the broker in this process, and a real Envoy with the filters that the operator
//! would give it, or the broker's own front alone. For the suites one fixture is the only server, without a prefix.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use mcp_gateway_api::envoy_filter::{BUFFER_LIMIT_MARGIN, ext_proc_filter, guard_filters};
use mcp_gateway_broker::options::{self, Command};
use mcp_gateway_broker::run::{self, Environment};
use mcp_gateway_broker::transport::address::AddressPolicy;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command as Process};
use tokio::time::Instant;

use crate::fixture::{self, Journal, Options, Running};

use super::install;

/// The names under which Envoy knows the fixtures end so.
const FIXTURE_DOMAIN: &str = "mcp.test";
/// Broker, Envoy and discovery of one server take a second or two.
const START_TIME: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// The broker's default limit of request bodies.
const BODY_LIMIT: u64 = 5_242_880;

/// A fixture behind the gateway.
#[derive(Clone, Debug)]
pub struct Behind {
    /// Its name as a server.
    pub name: String,
    /// Put before the names of its tools and prompts.
    pub prefix: String,
    /// What it is like.
    pub options: Options,
}

impl Behind {
    /// The only fixture, without a prefix.
    #[must_use]
    pub fn only(options: Options) -> Self {
        Self {
            name: "fixture".to_owned(),
            prefix: String::new(),
            options,
        }
    }
}

/// What stands before the fixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Envoy with the router.
    Envoy,
    /// The broker's own front (`--data-path=direct`).
    Direct,
    /// The standalone gateway, which is that front without a cluster.
    Standalone,
}

/// A running gateway; it ends when this value is dropped.
pub struct Gateway {
    port: u16,
    _reserved: TcpSocket,
    fixtures: Vec<(Behind, Running)>,
    envoy: Option<Child>,
    broker: run::Running,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// Starts everything and waits until the gateway serves the fixtures.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(front: Front, behind: Vec<Behind>, flags: &[String]) -> anyhow::Result<Self> {
        let mut fixtures = Vec::new();
        for behind in behind {
            let options = Options {
                allow_host: vec![host_of(&behind.name)],
                ..behind.options.clone()
            };
            let running = fixture::start(options)
                .await
                .context("cannot start the fixture")?;
            fixtures.push((behind, running));
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (reserved, envoy_port) = reserved_port()?;
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, server_list(&fixtures)).context("cannot write the broker's config")?;
        let words = match front {
            Front::Envoy => envoy_mode(envoy_port, &config),
            Front::Direct => {
                let mut words = envoy_mode(envoy_port, &config);
                words.push("--data-path=direct".to_owned());
                words
            }
            Front::Standalone => standalone(&config),
        };
        let options = broker_options(words, flags)?;
        let real = Environment::real(&options);
        let environment = Environment {
            addresses: AddressPolicy::Unchecked,
            endpoint_removal: Duration::ZERO,
            ..real
        };
        let broker = run::start(options, environment)
            .await
            .context("cannot start the broker")?;
        let (port, envoy) = match front {
            Front::Direct | Front::Standalone => (broker.broker.port(), None),
            Front::Envoy => {
                let router = broker.router.context("the broker has no router")?;
                let plan =
                    json!({"listen": envoy_port, "router": place(router), "broker": place(broker.broker)});
                (envoy_port, Some(start_envoy(folder.path(), &plan, &fixtures)?))
            }
        };
        let mut gateway = Self {
            port,
            _reserved: reserved,
            fixtures,
            envoy,
            broker,
            folder,
        };
        gateway.wait().await?;
        Ok(gateway)
    }

    /// Its endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://localhost:{}/mcp", self.port)
    }

    /// What the first fixture saw.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.fixtures.first().map(|(_, running)| &*running.journal)
    }

    /// What the fixture of this name saw.
    #[must_use]
    pub fn seen_by(&self, name: &str) -> Option<&Journal> {
        let mut all = self.fixtures.iter();
        all.find(|(behind, _)| behind.name == name)
            .map(|(_, running)| &*running.journal)
    }

    /// The broker's `/status`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let answer = reqwest::get(format!("http://{}/status", self.broker.broker)).await?;
        Ok(answer.json().await?)
    }

    /// Ends Envoy, so that it writes what it still holds, and copies its log.
    pub(crate) async fn keep_log(mut self, path: &Path) -> anyhow::Result<()> {
        let Some(mut envoy) = self.envoy.take() else {
            return Ok(());
        };
        if let Some(id) = envoy.id() {
            Process::new("kill")
                .arg(id.to_string())
                .status()
                .await
                .context("cannot end Envoy")?;
        }
        tokio::time::timeout(START_TIME, envoy.wait())
            .await
            .context("Envoy does not end")??;
        std::fs::copy(self.folder.path().join("envoy.txt"), path).context("cannot copy Envoy's log")?;
        Ok(())
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME;
        let broker = self.broker.broker;
        loop {
            let ended = self.envoy.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                let log = std::fs::read_to_string(self.folder.path().join("envoy.txt")).unwrap_or_default();
                anyhow::bail!("Envoy ended ({status}): {log}");
            }
            let listening = TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
            let state = state(broker).await;
            if listening && state.is_none() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                anyhow::bail!("not ready within {START_TIME:?}: {}", state.unwrap_or_default());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What the broker says of the first fixture that is not ready; nothing when all are.
async fn state(broker: SocketAddr) -> Option<String> {
    let Ok(answer) = reqwest::get(format!("http://{broker}/status")).await else {
        return Some("the broker does not answer".to_owned());
    };
    let status = answer.json::<Value>().await.unwrap_or_default();
    let servers = status.get("servers").and_then(Value::as_array);
    let Some(servers) = servers.filter(|servers| !servers.is_empty()) else {
        return Some("the broker does not know the servers".to_owned());
    };
    let ready = |server: &&Value| server.get("ready").and_then(Value::as_bool) == Some(true);
    let unready = servers.iter().find(|server| !ready(server))?;
    let message = unready.get("message").and_then(Value::as_str);
    Some(message.unwrap_or("a server is not ready").to_owned())
}

/// A port of loopback that nobody else gets while the socket lives. It does not listen, and Envoy may bind beside it: both
/// ask for `SO_REUSEPORT`, as Envoy's listeners do by default. A port that is only looked up and given back could become
/// the one of another listener of this process before Envoy starts.
fn reserved_port() -> anyhow::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).context("no free port")?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn host_of(name: &str) -> String {
    format!("{name}.{FIXTURE_DOMAIN}")
}

fn server_list(fixtures: &[(Behind, Running)]) -> String {
    let servers: Vec<Value> = fixtures
        .iter()
        .enumerate()
        .map(|(position, (behind, running))| {
            json!({
                "name": format!("conformance/{}", behind.name), "url": format!("http://{}/mcp", running.address),
                "hostname": host_of(&behind.name), "prefix": behind.prefix,
                "createdAt": format!("2026-01-01T00:00:{position:02}Z"), "uid": behind.name,
            })
        })
        .collect();
    json!({"servers": servers, "virtualServers": []}).to_string()
}

fn envoy_mode(port: u16, config: &Path) -> Vec<String> {
    vec![
        "--mcp-gateway-public-host=localhost".to_owned(),
        format!("--mcp-gateway-private-host=127.0.0.1:{port}"),
        format!("--mcp-gateway-config={}", config.display()),
        "--mcp-broker-public-address=127.0.0.1:0".to_owned(),
        "--mcp-router-address=127.0.0.1:0".to_owned(),
    ]
}

fn standalone(config: &Path) -> Vec<String> {
    vec![
        "run".to_owned(),
        format!("--config={}", config.display()),
        "--mcp-broker-public-address=127.0.0.1:0".to_owned(),
    ]
}

fn broker_options(words: Vec<String>, flags: &[String]) -> anyhow::Result<options::Options> {
    let fixed = [
        "--metrics-addr=127.0.0.1:0".to_owned(),
        format!(
            "--gateway-signing-key={}{}",
            uuid::Uuid::new_v4(),
            uuid::Uuid::new_v4()
        ),
    ];
    let words = words.into_iter().chain(fixed).chain(flags.iter().cloned());
    match options::parse(words, &|_| None)? {
        Command::Run(options) => Ok(*options),
        Command::Example(_) | Command::Child(..) => {
            anyhow::bail!("the broker's flags ask for an example server")
        }
        Command::Print(text) => anyhow::bail!("the broker's flags ask for a text: {text}"),
    }
}

fn place(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn start_envoy(folder: &Path, plan: &Value, fixtures: &[(Behind, Running)]) -> anyhow::Result<Child> {
    let file = folder.join("envoy.json");
    std::fs::write(&file, bootstrap(plan, fixtures).to_string())?;
    let log = std::fs::File::create(folder.join("envoy.txt"))?;
    Process::new(envoy_binary()?)
        .args([
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "-l",
            "warning",
            "-c",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start Envoy")
}

/// `MCPGW_ENVOY`, or what `kit build envoy` put into the cache.
fn envoy_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("MCPGW_ENVOY") {
        return Ok(path.into());
    }
    install::cached("envoy-", "envoy/_bin/envoy")
        .context("no Envoy in the cache: run `kit build envoy`, or set MCPGW_ENVOY")
}

fn cluster(name: &str, address: &Value, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    });
    if let (true, Some(members)) = (http2, cluster.as_object_mut()) {
        const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options = json!({
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        });
        members.insert(
            "typed_extension_protocol_options".to_owned(),
            json!({OPTIONS: options}),
        );
    }
    cluster
}

/// Envoy's static configuration. Every host but those of fixtures leads to the gateway, so that its own check of Host is tested.
fn bootstrap(plan: &Value, fixtures: &[(Behind, Running)]) -> Value {
    let at = |name: &str| plan.get(name).cloned().unwrap_or_default();
    let mut filters = vec![ext_proc_filter("router")];
    filters.extend(guard_filters("broker"));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let routes =
        |cluster: &str| json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]);
    let mut hosts = vec![json!({"name": "gateway", "domains": ["*"], "routes": routes("broker")})];
    let mut clusters = vec![
        cluster("router", &at("router"), true),
        cluster("broker", &at("broker"), false),
    ];
    for (behind, running) in fixtures {
        let host = host_of(&behind.name);
        clusters.push(cluster(&host, &place(running.address), false));
        hosts.push(json!({"name": host, "domains": [host], "routes": routes(&host)}));
    }
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "strip_any_host_port": true,
        "access_log": [{"name": "stderr", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {"text_format_source": {"inline_string":
                "%REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%\n"}},
        }}],
        "http_filters": filters,
        "route_config": {"virtual_hosts": hosts},
    });
    let listen = json!({"socket_address": {"address": "127.0.0.1", "port_value": at("listen")}});
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "clusters": clusters,
            "listeners": [{
                "address": listen,
                "per_connection_buffer_limit_bytes": BODY_LIMIT + BUFFER_LIMIT_MARGIN,
                "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
                ]}],
            }],
        },
    })
}
