//! The task of one server: connect, check, list, publish, wait; again (data-plane.md 6.1). It ends only when it is
//! stopped. What it publishes goes into its own slot, so a task that was replaced can touch nothing of its successor.

use super::items::{ItemKind, Items};
use super::listing::Listed;
use super::noticing::{noticed, watch_notices};
use super::peer::{Hello, Peer};
use super::publisher::{Publisher, TOLERATED};
use super::snapshot::{ServerSnapshot, State};
use super::stateless::Found;
use crate::auth::clock;
use crate::config::model::{Protocol, ServerConfig};
use crate::options::InvalidToolPolicy;
use crate::protocol::version::{self, Era};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::transport::address::AddressPolicy;
use crate::transport::client::server_client;
use crate::transport::exchange::ExchangeError;
use crate::transport::notices::Notices;
use arc_swap::ArcSwap;
use rand::Rng as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// From the request to the end of its answer.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Settings of all connections.
#[derive(Clone)]
pub struct ConnectionSettings {
    /// Tick.
    pub check_interval: Duration,
    /// Which addresses may be reached.
    pub addresses: AddressPolicy,
    /// What invalid tools do.
    pub invalid_tool_policy: InvalidToolPolicy,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Traces.
    pub traces: Traces,
}

/// A running connection.
pub struct Connection {
    /// What the server is configured as.
    pub config: Arc<ServerConfig>,
    slot: Arc<ArcSwap<ServerSnapshot>>,
    stop: CancellationToken,
}

/// Where a server was looked for, and what mostly is wrong with that. A path may be a secret.
fn place(config: &ServerConfig, error: &ExchangeError) -> String {
    let Some(host) = config.url.host_str().filter(|_| !config.bridged) else {
        return String::new();
    };
    let port = config.url.port_or_known_default().unwrap_or_default();
    let advice = match error {
        ExchangeError::Connect("connection refused") => {
            ": nothing listens there; start the server, or correct the port"
        }
        ExchangeError::Connect("name not resolved") => ": DNS does not know the host; correct it",
        ExchangeError::Status(404 | 405) => ": the path in its url may be wrong",
        ExchangeError::Status(401 | 403) => ": it wants another credential",
        _ => "",
    };
    format!(" at {host}:{port}{advice}")
}

impl Connection {
    /// Starts the task of `config`; `changed` is notified whenever the snapshot differs.
    pub fn start(
        config: Arc<ServerConfig>,
        ca_bundle: &str,
        settings: ConnectionSettings,
        changed: Arc<Notify>,
    ) -> Self {
        let slot = Arc::new(ArcSwap::from_pointee(ServerSnapshot::default()));
        let stop = CancellationToken::new();
        let mut publisher = Publisher {
            config: Arc::clone(&config),
            slot: Arc::clone(&slot),
            changed,
            failures: 0,
        };
        if config.enabled {
            let (ca_bundle, stop) = (ca_bundle.to_owned(), stop.clone());
            tokio::spawn(async move { Task::new(publisher, &ca_bundle, settings, stop).run().await });
        } else {
            publisher.disabled();
        }
        Self { config, slot, stop }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<ServerSnapshot> {
        self.slot.load_full()
    }

    /// The same connection under a config that differs in nothing that concerns it.
    #[must_use]
    pub fn with_config(self: &Arc<Self>, config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            slot: Arc::clone(&self.slot),
            stop: self.stop.clone(),
        }
    }

    /// Ends the task; it closes its session by itself, at most 5 s later.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

struct Task {
    publisher: Publisher,
    peer: Result<Arc<Peer>, &'static str>,
    settings: ConnectionSettings,
    stop: CancellationToken,
    hello: Option<Hello>,
    watcher: Option<JoinHandle<()>>,
    kind_failures: [u32; 4],
}

impl Task {
    fn new(
        publisher: Publisher,
        ca_bundle: &str,
        settings: ConnectionSettings,
        stop: CancellationToken,
    ) -> Self {
        let config = &publisher.config;
        let peer = if settings.addresses.allows_literal(config) {
            server_client(&[config.ca.pem(), ca_bundle], settings.addresses)
                .map(|client| {
                    let notices = Notices::counted(Arc::clone(&settings.metrics));
                    Arc::new(Peer::new(client, Arc::clone(config), notices))
                })
                .map_err(|_| "CA bundle is not valid")
        } else {
            Err("address not allowed")
        };
        Self {
            publisher,
            peer,
            settings,
            stop,
            hello: None,
            watcher: None,
            kind_failures: [0; 4],
        }
    }

    async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let started = Instant::now();
            let mut span = self.settings.traces.alone("mcp-broker.upstream-manage");
            let checked = tokio::select! {
                () = stop.cancelled() => break,
                checked = self.check() => checked,
            };
            let name = &self.publisher.config.name;
            if let Some(span) = &mut span {
                span.note("mcp.server", name);
                if checked.is_err() {
                    span.failed("backend");
                }
            }
            drop(span);
            self.settings.metrics.servers.discovery(
                name,
                checked.is_ok(),
                self.hello.is_some(),
                started.elapsed(),
            );
            if let Err(what) = &checked {
                self.disconnect();
                self.publisher.failed(what);
            }
            let pause = if checked.is_ok() {
                self.settings.check_interval
            } else {
                self.backoff()
            };
            let notices = self.peer.as_ref().ok().map(|peer| Arc::clone(&peer.notices));
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
                () = noticed(notices), if checked.is_ok() => {}
            }
        }
        self.unwatch();
        if let (Ok(peer), Some(hello)) = (&self.peer, &self.hello) {
            peer.close(hello).await;
        }
    }

    fn backoff(&self) -> Duration {
        let doublings = self.publisher.failures.saturating_sub(1).min(16);
        let base = FIRST_BACKOFF
            .saturating_mul(1 << doublings)
            .min(LONGEST_BACKOFF)
            .min(self.settings.check_interval);
        base.mul_f64(1.0 + rand::rng().random_range(0.0..0.1))
    }

    fn disconnect(&mut self) {
        self.unwatch();
        self.hello = None;
    }

    fn unwatch(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }

    /// One check: connection, health, lists. The error is the message for the status.
    async fn check(&mut self) -> Result<(), String> {
        let id = self.publisher.config.id.clone();
        let peer = match &self.peer {
            Ok(peer) => Arc::clone(peer),
            Err(cause) => return Err(format!("failed to connect to upstream mcp {id}: {cause}")),
        };
        peer.notices.clear();
        let hello = match self.hello.clone() {
            Some(hello) => {
                let failed = |error| format!("upstream mcp failed to ping server {id}: {error}");
                in_time(peer.ping(&hello)).await.map_err(failed)?;
                hello
            }
            None => self.connect(&peer).await?,
        };
        if self.publisher.config.user_specific_list {
            self.publish_user_specific(&hello);
            return Ok(());
        }
        let lists = futures::future::join_all(
            hello
                .kinds
                .iter()
                .map(|kind| async { (*kind, peer.list(*kind, &hello).await) }),
        )
        .await;
        self.publish_lists(&hello, lists)
    }

    /// What the server is, by the protocol that its registration names, or by finding out.
    async fn hello(&self, peer: &Peer) -> Result<Hello, ExchangeError> {
        let protocol = self.publisher.config.protocol;
        if protocol == Protocol::Legacy {
            return peer.initialize().await;
        }
        match peer.probe().await? {
            Found::Stateless(hello) => Ok(Hello {
                sessions: protocol == Protocol::Auto && peer.has_sessions(hello.sessions).await,
                ..hello
            }),
            Found::Sessions if protocol == Protocol::Modern => Err(ExchangeError::Malformed),
            Found::Sessions => peer.initialize().await,
        }
    }

    async fn connect(&mut self, peer: &Arc<Peer>) -> Result<Hello, String> {
        let id = &self.publisher.config.id;
        let trouble = &self.publisher.config.trouble;
        let failed = |error: ExchangeError| {
            let cause = trouble
                .text()
                .unwrap_or_else(|| format!("{error}{}", place(&self.publisher.config, &error)));
            format!("failed to connect to upstream mcp {id}: {cause}")
        };
        let hello = in_time(self.hello(peer)).await.map_err(failed)?;
        if !version::is_known(&hello.version) {
            let shown: String = hello
                .version
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
                .take(32)
                .collect();
            return Err(format!("unsupported protocol version {shown}"));
        }
        tracing::info!(
            component = "manager",
            server = self.publisher.config.name,
            version = hello.version,
            "MCP server connected"
        );
        self.hello = Some(hello.clone());
        self.watcher = Some(tokio::spawn(watch_notices(Arc::clone(peer), hello.clone())));
        Ok(hello)
    }

    fn publish_user_specific(&mut self, hello: &Hello) {
        self.publisher.failures = 0;
        self.publisher.publish(ServerSnapshot {
            message: "userSpecificList server healthy, tools fetched per-user".to_owned(),
            ..self.success(hello, Items::default())
        });
    }

    fn success(&self, hello: &Hello, items: Items) -> ServerSnapshot {
        ServerSnapshot {
            state: State::Ready,
            failures: 0,
            message: String::new(),
            last_validated: clock::rfc3339(),
            version: hello.version.clone(),
            sessions: hello.sessions,
            version_ok: true,
            completions: hello.completions,
            resources: hello.kinds.contains(&ItemKind::Resource),
            items: Arc::new(items),
            served: true,
            stale: false,
            ready: true,
            attempted: true,
            warnings: Vec::new(),
        }
    }

    /// Publishes what was listed. A kind that failed keeps its last good items for two failures. A check whose tools failed
    /// counts among the failed ones, and fails wholly when it is the third.
    fn publish_lists(&mut self, hello: &Hello, lists: Vec<(ItemKind, Listed)>) -> Result<(), String> {
        let last = self.publisher.slot.load_full();
        let (mut items, mut problems, mut failed_checks) = (Items::default(), Vec::new(), 0);
        for (kind, listed) in lists {
            let Some(failures) = self.kind_failures.get_mut(kind as usize) else {
                continue;
            };
            match listed {
                Ok(mut list) => {
                    if hello.era() == Era::Modern {
                        list.refuse_unusable();
                    }
                    *failures = 0;
                    *items.of_mut(kind) = list;
                }
                Err(error) => {
                    if kind == ItemKind::Tool {
                        *failures = self.publisher.failures;
                    }
                    *failures = failures.saturating_add(1);
                    let what = format!(
                        "upstream mcp failed to list {} server {}: {error}",
                        kind.member(),
                        self.publisher.config.id
                    );
                    if *failures < TOLERATED && last.served {
                        *items.of_mut(kind) = last.items.of(kind).clone();
                        if kind == ItemKind::Tool {
                            failed_checks = *failures;
                        }
                    } else if kind == ItemKind::Tool {
                        return Err(what);
                    }
                    problems.push(format!("{what} [failure {failures}]"));
                }
            }
        }
        self.publisher.failures = failed_checks;
        let mut next = self.success(hello, items);
        next.message = format!(
            "server added successfully. Total tools added {}. Total prompts added {}",
            next.items.tools.items.len(),
            next.items.prompts.items.len()
        );
        next.stale = !problems.is_empty();
        if let Some(problem) = problems.first() {
            next.message.clone_from(problem);
            next.failures = self.kind_failures.into_iter().max().unwrap_or(0);
        }
        if next.items.rejected(self.settings.invalid_tool_policy) {
            let (id, count) = (&self.publisher.config.id, next.items.tools.invalid_count);
            next.message = format!("upstream mcp {id} rejected: {count} invalid tools found");
            (next.served, next.ready) = (false, false);
        }
        self.publisher.publish(next);
        Ok(())
    }
}

/// A server that keeps a reply alive without ever ending it has failed, too.
async fn in_time<T>(exchange: impl Future<Output = Result<T, ExchangeError>>) -> Result<T, ExchangeError> {
    timeout(LONGEST_EXCHANGE, exchange)
        .await
        .unwrap_or(Err(ExchangeError::Timeout("answer")))
}
