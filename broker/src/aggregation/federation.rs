//! The one task that owns the connections: it applies config updates in order and rebuilds the catalog when a config or
//! a server's snapshot changes. Readers take the published snapshot and never wait for it.

use super::catalog::{Catalog, ConfigFacts, OwnHosts, Server, Sources};
use super::meta::MetaSettings;
use crate::auth::clock;
use crate::authn::Authenticator;
use crate::config::model::Snapshot;
use crate::config::watch::{Source, Update};
use crate::sessions::way::Way;
use crate::upstreams::connection::{Connection, ConnectionSettings};
use crate::upstreams::snapshot::State;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Readiness does not wait longer for the first attempts (data-plane.md 2.7).
const FIRST_ATTEMPTS: Duration = Duration::from_secs(10);
/// How often the CA file of the hairpin is looked at.
const CA_POLL: Duration = Duration::from_secs(2);

/// Between two catalogs that changes of servers make: many that change at once are one change.
const PACE: Duration = Duration::from_millis(250);

/// The published catalog, for readers.
pub struct Published {
    current: ArcSwap<Catalog>,
    changes: watch::Sender<Arc<Catalog>>,
    first_config: std::sync::OnceLock<Instant>,
}

impl Default for Published {
    fn default() -> Self {
        let empty = Arc::new(Catalog::default());
        Self {
            current: ArcSwap::new(Arc::clone(&empty)),
            changes: watch::Sender::new(empty),
            first_config: std::sync::OnceLock::new(),
        }
    }
}

impl Published {
    /// The catalog of this moment.
    pub fn load(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// Wakes for every new catalog.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.changes.subscribe()
    }

    fn publish(&self, catalog: Catalog) {
        if catalog.config.snapshot.is_some() {
            self.first_config.get_or_init(Instant::now);
        }
        let catalog = Arc::new(catalog);
        self.current.store(Arc::clone(&catalog));
        self.changes.send_replace(catalog);
    }

    /// Readiness checks by name (data-plane.md 2.7).
    pub fn checks(&self) -> [(&'static str, bool); 2] {
        let catalog = self.load();
        let waited = self
            .first_config
            .get()
            .is_some_and(|start| start.elapsed() >= FIRST_ATTEMPTS);
        let attempted = catalog.servers.iter().all(|server| server.snapshot.attempted);
        let loaded = catalog.config.snapshot.is_some();
        [("config", loaded), ("servers", loaded && (attempted || waited))]
    }
}

/// What the task needs.
pub struct Federation {
    /// Settings of the connections.
    pub settings: ConnectionSettings,
    /// Own hosts.
    pub hosts: OwnHosts,
    /// Settings of the gateway's own tools.
    pub meta: MetaSettings,
    /// Origins of the command line.
    pub allowed_origins: Vec<String>,
    /// Way to the servers, whose roots follow the config and the CA file.
    pub way: Arc<Way>,
    /// CA file of the hairpin.
    pub ca_file: Option<PathBuf>,
    /// Check of the callers' tokens, which follows the config.
    pub authenticator: Arc<Authenticator>,
    /// Where catalogs are published.
    pub published: Arc<Published>,
}

struct Running {
    federation: Federation,
    connections: HashMap<String, Arc<Connection>>,
    facts: ConfigFacts,
    changed: Arc<Notify>,
    ca_seen: Option<String>,
}

impl Federation {
    /// Runs until `stop`.
    pub async fn run(self, mut updates: mpsc::Receiver<Update>, stop: CancellationToken) {
        let mut running = Running {
            federation: self,
            connections: HashMap::new(),
            facts: ConfigFacts::default(),
            changed: Arc::default(),
            ca_seen: None,
        };
        running.follow_ca().await;
        let mut ca_tick = tokio::time::interval(CA_POLL);
        let (changed, mut rest) = (Arc::clone(&running.changed), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                update = updates.recv() => match update {
                    Some(update) => running.apply(update).await,
                    None => break,
                },
                () = next_change(&changed, rest) => {
                    running.rebuild().await;
                    rest = Instant::now() + PACE;
                }
                _ = ca_tick.tick() => running.follow_ca().await,
            }
        }
        for connection in running.connections.values() {
            connection.stop();
        }
    }
}

/// The next change of a server, but none before `rest`; one that comes in between is not lost.
async fn next_change(changed: &Notify, rest: Instant) {
    sleep_until(rest).await;
    changed.notified().await;
}

impl Running {
    async fn apply(&mut self, update: Update) {
        self.federation
            .settings
            .metrics
            .reload(matches!(update, Update::Good(..)));
        match update {
            Update::Bad(source, error) => {
                tracing::warn!(
                    component = "config",
                    source = source.as_str(),
                    error,
                    "Config not usable, the previous one stays"
                );
                self.facts.error = Some(error);
            }
            Update::Good(source, snapshot) => self.load(source, snapshot).await,
        }
        self.rebuild().await;
    }

    async fn load(&mut self, source: Source, snapshot: Arc<Snapshot>) {
        let before = self.facts.snapshot.replace(Arc::clone(&snapshot));
        let bundle_changed = before
            .as_ref()
            .is_none_or(|before| before.gateway_ca_pem != snapshot.gateway_ca_pem);
        self.facts.source = Some(source);
        self.facts.loaded_at = clock::rfc3339();
        self.facts.error = None;
        // Before the catalog with its policies is published: whoever is not verified by then is let in nowhere.
        self.federation.authenticator.apply(&snapshot);
        self.reconnect(&snapshot, bundle_changed && before.is_some());
        if bundle_changed {
            self.ca_seen = None;
            self.follow_ca().await;
        }
        let (servers, errors) = (snapshot.servers.len(), snapshot.errors.len());
        tracing::info!(
            component = "config",
            source = source.as_str(),
            hash = snapshot.hash,
            servers,
            errors,
            "Config applied"
        );
        for error in &snapshot.errors {
            tracing::warn!(component = "config", error, "Config item left out");
        }
        for warning in &snapshot.warnings {
            tracing::warn!(component = "config", warning, "Config has a mistake");
        }
    }

    /// Keeps connections whose server needs no new one, replaces or ends the others. Stopping happens in their own tasks.
    fn reconnect(&mut self, snapshot: &Snapshot, bundle_changed: bool) {
        let mut next = HashMap::new();
        for config in &snapshot.servers {
            let kept = self.connections.remove(&config.name).and_then(|old| {
                if config.needs_new_connection(&old.config, bundle_changed) {
                    old.stop();
                    None
                } else {
                    Some(Arc::new(old.with_config(Arc::clone(config))))
                }
            });
            let connection = kept.unwrap_or_else(|| {
                let (settings, changed) = (self.federation.settings.clone(), Arc::clone(&self.changed));
                Arc::new(Connection::start(
                    Arc::clone(config),
                    &snapshot.gateway_ca_pem,
                    settings,
                    changed,
                ))
            });
            next.insert(config.name.clone(), connection);
        }
        for old in self.connections.values() {
            old.stop();
        }
        self.connections = next;
    }

    /// Publishes a catalog of what is known now. The first one of ten thousand tools takes about 10 ms (`bench micro`), in which no
    /// request must wait for this worker.
    async fn rebuild(&self) {
        let configs = self
            .facts
            .snapshot
            .as_deref()
            .map(|snapshot| snapshot.servers.as_slice())
            .unwrap_or_default();
        let servers = configs
            .iter()
            .filter_map(|config| {
                self.connections
                    .get(&config.name)
                    .map(|connection| (Arc::clone(config), connection.snapshot()))
            })
            .collect();
        let (facts, hosts) = (self.facts.clone(), self.federation.hosts.clone());
        let (meta, origins) = (self.federation.meta, self.federation.allowed_origins.clone());
        let published = Arc::clone(&self.federation.published);
        let built = spawn_blocking(move || {
            let before = published.load();
            let catalog = Catalog::build(Sources {
                config: &facts,
                servers,
                hosts: &hosts,
                meta,
                allowed_origins: &origins,
                before: Some(&before),
            });
            let servers = catalog.servers.len();
            let is_up = |server: &&Server| server.snapshot.state == State::Ready;
            let up = catalog.servers.iter().filter(is_up).count();
            published.publish(catalog);
            tracing::debug!(component = "broker", servers, up, "Catalog published");
        });
        if built.await.is_err() {
            tracing::error!(component = "broker", "Catalog not built, the previous one stays");
        }
    }

    /// Gives the hairpin the roots of the CA file and the config when one of them changed.
    async fn follow_ca(&mut self) {
        let file = match &self.federation.ca_file {
            None => String::new(),
            Some(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => text,
                Err(error) => {
                    if self.ca_seen.as_deref() != Some("") {
                        tracing::warn!(component = "config", file = %path.display(), error = %error.kind(), "CA file not readable");
                    }
                    String::new()
                }
            },
        };
        if self.ca_seen.as_ref() == Some(&file) {
            return;
        }
        let bundle = self
            .facts
            .snapshot
            .as_deref()
            .map(|snapshot| snapshot.gateway_ca_pem.as_str())
            .unwrap_or_default();
        if let Err(error) = self.federation.way.trust([&file, bundle]) {
            tracing::warn!(component = "config", %error, "Roots not usable, the former ones stay");
        }
        self.ca_seen = Some(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn of_many_changes_the_first_counts_at_once_and_the_last_soon() {
        let changed = Arc::new(Notify::new());
        let (begun, storm) = (Instant::now(), Arc::clone(&changed));
        let storm = tokio::spawn(async move {
            for _ in 0..100 {
                storm.notify_one();
                sleep(Duration::from_millis(9)).await;
            }
            begun.elapsed()
        });
        let (mut rest, mut seen) = (begun, Vec::new());
        while timeout(4 * PACE, next_change(&changed, rest)).await.is_ok() {
            seen.push(begun.elapsed());
            rest = Instant::now() + PACE;
        }
        let ended = storm.await.unwrap();
        assert_eq!(seen[0], Duration::ZERO);
        assert!(seen.len() <= 6, "{seen:?}");
        assert!(
            *seen.last().unwrap() <= ended + PACE && *seen.last().unwrap() + PACE > ended,
            "{seen:?}"
        );
    }
}
