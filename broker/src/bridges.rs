//! Servers that do not speak streamable HTTP (data-plane.md 13): child processes on standard input and output (`stdio`), and
//! servers of 2024-11-05 (`sse`). A bridge shows each of them as streamable HTTP on loopback, under a path that nobody can
//! guess, so that no other part of the gateway knows of them. One backend session is one child, or one event stream.

mod link;
pub mod orphan;
mod server;
mod session;
mod shared;
mod sharing;
mod sse;
mod stdio;

use crate::config::model::{ServerConfig, Snapshot, Transport};
use crate::config::watch::Update;
use crate::telemetry::metrics::Metrics;
use crate::transport::address::AddressPolicy;
use arc_swap::ArcSwap;
use server::Bridge;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use stdio::Named;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

/// Bridges by their secret path; every request of a bridge looks here.
type Paths = Arc<ArcSwap<HashMap<String, Arc<Bridge>>>>;

/// The bridges of the process.
pub struct Bridges {
    addresses: AddressPolicy,
    metrics: Arc<Metrics>,
    /// Where they listen; bound when the first one is needed.
    listener: Option<SocketAddr>,
    paths: Paths,
    running: HashMap<String, Running>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Running {
    config: Arc<ServerConfig>,
    bundle: String,
    /// `None` for a command whose server has a URL of its own: it is only kept running.
    bridge: Option<(String, Arc<Bridge>)>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bridges {
    /// Bridges that end with `stop`; what has to be waited for then is in `tasks`.
    pub fn new(
        addresses: AddressPolicy,
        metrics: Arc<Metrics>,
        (stop, tasks): (CancellationToken, TaskTracker),
    ) -> Self {
        Self {
            addresses,
            metrics,
            listener: None,
            paths: Paths::default(),
            running: HashMap::new(),
            stop,
            tasks,
        }
    }

    /// Passes updates on, servers that need a bridge with the URL of theirs.
    pub async fn run(mut self, mut updates: mpsc::Receiver<Update>, onward: mpsc::Sender<Update>) {
        loop {
            let update = tokio::select! {
                () = onward.closed() => return,
                update = updates.recv() => update,
            };
            let Some(update) = update else { return };
            let update = match update {
                Update::Good(source, snapshot) => Update::Good(source, self.bridged(snapshot).await),
                Update::Bad(source, error) => Update::Bad(source, error),
            };
            if onward.send(update).await.is_err() {
                return;
            }
        }
    }

    async fn bridged(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let needs = |server: &ServerConfig| {
            server.enabled && (server.transport != Transport::StreamableHttp || server.command.is_some())
        };
        if self.running.is_empty() && !snapshot.servers.iter().any(|server| needs(server)) {
            return snapshot;
        }
        let mut next = Snapshot::clone(&snapshot);
        let mut running = HashMap::new();
        for server in next.servers.iter_mut().filter(|server| needs(server)) {
            let same = |old: &Running| {
                old.bundle == snapshot.gateway_ca_pem && !server.needs_new_connection(&old.config, false)
            };
            let kept = self.running.remove(&server.name).filter(same);
            let started = kept.unwrap_or_else(|| self.start(server, &snapshot.gateway_ca_pem));
            if let Some((path, _)) = &started.bridge {
                match self.url(path).await {
                    Ok(url) => *server = Arc::new(at(server, url)),
                    Err(error) => next
                        .errors
                        .push(format!("server {:?}: bridge: {error}", server.name)),
                }
            }
            running.insert(server.name.clone(), started);
        }
        self.running = running;
        let bridges = self.running.values();
        let bridges = bridges.filter_map(|running| running.bridge.clone());
        self.paths.store(Arc::new(bridges.collect()));
        Arc::new(next)
    }

    fn start(&self, config: &Arc<ServerConfig>, bundle: &str) -> Running {
        let stop = self.stop.child_token();
        let bridge = match (&config.command, config.transport) {
            (Some(command), Transport::StreamableHttp) => {
                let (named, command) = (self.named(config), Arc::clone(command));
                self.tasks
                    .spawn(stdio::keep_running(named, command, stop.clone()));
                None
            }
            _ => {
                let bridge = Bridge::new(
                    Arc::clone(config),
                    (bundle, self.named(config)),
                    self.addresses,
                    (stop.clone(), self.tasks.clone()),
                );
                Some((hex::encode(rand::random::<[u8; 16]>()), Arc::new(bridge)))
            }
        };
        Running {
            config: Arc::clone(config),
            bundle: bundle.to_owned(),
            bridge,
            stop,
        }
    }

    fn named(&self, config: &ServerConfig) -> Named {
        Named {
            name: config.name.clone(),
            running: self.metrics.children(&config.name),
        }
    }

    async fn url(&mut self, path: &str) -> std::io::Result<Url> {
        let address = match self.listener {
            Some(address) => address,
            None => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
                let address = listener.local_addr()?;
                self.listener = Some(address);
                let (paths, stop) = (Arc::clone(&self.paths), self.stop.clone());
                tokio::spawn(server::serve(listener, paths, stop));
                address
            }
        };
        Url::parse(&format!("http://{address}/{path}")).map_err(std::io::Error::other)
    }
}

/// The server, reached at the gateway's end of its bridge.
fn at(server: &ServerConfig, url: Url) -> ServerConfig {
    let mut bridged = server.clone();
    bridged.path = url.path().to_owned();
    bridged.url = url;
    bridged.bridged = true;
    bridged
}
