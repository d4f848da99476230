//! The process: pieces in their start order (data-plane.md 2.7), their wiring, and the orderly end.

pub mod bounds;
mod pieces;
mod runtime;
mod terminal;
mod upkeep;

use crate::auth::keys::Keys;
use crate::bridges::Bridges;
use crate::config::document::Dialect;
use crate::config::model::Snapshot;
use crate::config::watch::Update;
use crate::config::{sources, watch};
use crate::front::listener::Serving;
use crate::front::tls::{self, ServingPair};
use crate::front::{self, FrontState, streams};
use crate::kubernetes::secret::{self, ClusterAccess};
use crate::options::Options;
use crate::pipeline::facts::Pipeline;
use crate::router::replies::Extension;
use crate::secret::Secret;
use crate::telemetry::traces::Traces;
use crate::transport::address::AddressPolicy;
use crate::transport::client::install_crypto;
use anyhow::Context as _;
use bounds::Bounds;
use futures::future::BoxFuture;
use pieces::Pieces;
pub use runtime::runtime;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
pub use terminal::Terminal;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use upkeep::Upkeep;

/// Endpoints are removed from load balancers in this time.
const ENDPOINT_REMOVAL: Duration = Duration::from_secs(5);
/// Running calls may finish in this time.
const IN_FLIGHT: Duration = Duration::from_secs(12);
/// What is left may end in this time; child processes take the longest.
const LAST_TASKS: Duration = Duration::from_secs(6);
/// Updates of the config that wait; one is applied at a time.
const UPDATE_QUEUE: usize = 4;

/// Where the kubelet mounts the pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What tests set and flags cannot.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Which addresses servers may have.
    pub addresses: AddressPolicy,
    /// How long readiness is off before the listeners close.
    pub endpoint_removal: Duration,
    /// The cluster's API server, when there is one.
    pub cluster: Option<ClusterAccess>,
    /// How long a lost watch of the config Secret still decides.
    pub watch_grace: Duration,
    /// What may be open at once.
    pub bounds: Bounds,
}

impl Environment {
    /// The environment of the real process.
    pub fn real(options: &Options) -> Self {
        let addresses = if options.standalone {
            AddressPolicy::Named
        } else {
            AddressPolicy::Strict
        };
        let cluster = options.api_server.clone().map(|base| ClusterAccess {
            base,
            account: SERVICE_ACCOUNT.into(),
        });
        Self {
            addresses,
            // Nobody but a load balancer has to hear of the end before it comes.
            endpoint_removal: if options.standalone {
                Duration::ZERO
            } else {
                ENDPOINT_REMOVAL
            },
            cluster,
            watch_grace: sources::GRACE,
            bounds: Bounds::default(),
        }
    }
}

/// A started process.
pub struct Running {
    /// Address of the broker.
    pub broker: SocketAddr,
    /// Address of the router.
    pub router: Option<SocketAddr>,
    /// Address of the admin listener.
    pub admin: Option<SocketAddr>,
    state: Arc<FrontState>,
    upkeep: Upkeep,
    traces: Traces,
    endpoint_removal: Duration,
    stop_listening: CancellationToken,
    stop_background: CancellationToken,
    listeners: TaskTracker,
    background: TaskTracker,
}

/// Starts everything; returns when the listeners are bound.
///
/// # Errors
/// When an address cannot be bound or a key is missing.
pub async fn start(options: Options, environment: Environment) -> anyhow::Result<Running> {
    install_crypto();
    announce(&options);
    let pair = Arc::<ServingPair>::default();
    let config = if options.standalone {
        let config = check_config(&options).await?;
        pair.apply(config.front.tls.as_ref()).await?;
        Some(config)
    } else {
        None
    };
    let signing = options.keys.signing.clone().unwrap_or_else(ephemeral_key);
    let keys = Arc::new(Keys::new(signing, options.keys.previous.clone()));
    let pieces = Pieces::new(&options, &keys, environment.addresses).await?;
    let broker = bind(&options.broker_address, "--mcp-broker-public-address").await?;
    let router = match &options.router_address {
        Some(address) => Some(bind(address, "--mcp-router-address").await?),
        None => None,
    };
    let admin = match &options.metrics_address {
        Some(address) => Some(bind(address, "--metrics-addr").await?),
        None => None,
    };
    let pipeline = pieces.pipeline(&options, &keys);
    let exposed = options.standalone && !broker.local_addr()?.ip().is_loopback();
    if exposed && config.is_some_and(|config| config.providers.is_empty()) {
        let address = &options.broker_address;
        tracing::warn!(component = "broker", address, "{}", front::status::EXPOSED);
    }
    let state = pieces.front_state((&options, &keys), &pipeline, (pair, exposed), environment.bounds);
    let running = Running {
        broker: broker.local_addr()?,
        router: router.as_ref().map(TcpListener::local_addr).transpose()?,
        admin: admin.as_ref().map(TcpListener::local_addr).transpose()?,
        upkeep: pieces.upkeep(&state),
        traces: pieces.traces.clone(),
        state,
        endpoint_removal: environment.endpoint_removal,
        stop_listening: CancellationToken::new(),
        stop_background: CancellationToken::new(),
        listeners: TaskTracker::new(),
        background: TaskTracker::new(),
    };
    running.serve(broker, admin, options.write_timeout);
    if let Some(listener) = router {
        running.serve_router(listener, pipeline, (&options, environment.bounds));
    }
    running.state.health.listening();
    running.spawn_background(&options, &pieces, &environment);
    let endpoint = options.standalone.then(|| endpoint(&running));
    tracing::info!(component = "broker", address = %running.broker, endpoint, version = crate::VERSION, "Broker listens");
    Ok(running)
}

/// What clients on this machine are given.
fn endpoint(running: &Running) -> String {
    let scheme = if running.state.tls.is_served() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{}/mcp", running.broker)
}

fn announce(options: &Options) {
    for flag in &options.not_built {
        tracing::warn!(
            component = "broker",
            flag,
            "Flag accepted, its feature is not in this build"
        );
    }
}

/// A key for this process only: sessions end with it.
fn ephemeral_key() -> Secret {
    tracing::warn!(
        component = "broker",
        "No GATEWAY_SIGNING_KEY: a random key is used, sessions end with this process"
    );
    Secret::new(hex::encode(rand::random::<[u8; 32]>()))
}

/// What the config may say here.
fn dialect(options: &Options) -> Dialect {
    let lookup = |name: &str| std::env::var(name).ok();
    Dialect {
        forwards: options.forwards,
        local: options.standalone.then_some(lookup),
    }
}

/// Standalone, a config that cannot be used ends the start: somebody sits in front of it.
async fn check_config(options: &Options) -> anyhow::Result<Arc<Snapshot>> {
    let files = &options.config_files;
    let path = files.iter().find(|path| path.exists()).or(files.last());
    let path = path.context("no config file is named")?;
    let bytes = tokio::fs::read(path).await;
    let bytes = bytes.with_context(|| format!("read {}; name the file with --config", path.display()))?;
    match watch::from_file((path, dialect(options)), &bytes) {
        Update::Good(_, snapshot) => Ok(snapshot),
        Update::Bad(_, error) => anyhow::bail!(error),
    }
}

async fn bind(address: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("bind {address}; name another address with {flag}"))
}

impl Running {
    fn serve(&self, broker: TcpListener, admin: Option<TcpListener>, write_timeout: Duration) {
        let app = front::broker(Arc::clone(&self.state));
        let serving = Serving {
            pair: Arc::clone(&self.state.tls),
            write_timeout,
        };
        self.listeners.spawn(front::listener::serve(
            broker,
            app,
            serving,
            self.stop_listening.clone(),
        ));
        if let Some(listener) = admin {
            // Readiness and metrics are served to the very end.
            let app = front::admin::admin(Arc::clone(&self.state));
            self.background.spawn(front::listener::serve(
                listener,
                app,
                Serving {
                    write_timeout,
                    ..Serving::default()
                },
                self.stop_background.clone(),
            ));
        }
    }

    fn serve_router(
        &self,
        listener: TcpListener,
        state: Arc<Pipeline>,
        (options, bounds): (&Options, Bounds),
    ) {
        let extension = Extension::of(options.message_timeout, options.max_message_timeout);
        let (stop, limits) = (self.stop_listening.clone(), (extension, bounds.router_streams));
        self.listeners.spawn(async move {
            if let Err(error) = crate::router::server::serve(listener, state, limits, stop).await {
                tracing::error!(component = "router", %error, "Router ended");
            }
        });
    }

    fn spawn_background(&self, options: &Options, pieces: &Pieces, environment: &Environment) {
        let (updates, mut receiver) = mpsc::channel(UPDATE_QUEUE);
        self.spawn_config(options, environment, updates);
        if options.forwards {
            let (onward, bridged) = mpsc::channel(UPDATE_QUEUE);
            let (stop, tasks) = (self.stop_background.clone(), self.background.clone());
            let bridges = Bridges::new(
                environment.addresses,
                Arc::clone(&self.state.metrics),
                (stop, tasks),
            );
            self.background
                .spawn(bridges.run(std::mem::replace(&mut receiver, bridged), onward));
        }
        let stop = self.stop_background.clone();
        self.background
            .spawn(pieces.federation(options, environment).run(receiver, stop));
        let (stop, state) = (self.stop_background.clone(), Arc::clone(&self.state));
        self.background.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = streams::announce_changes(Arc::clone(&state)) => {}
                () = streams::forget_abandoned(state) => {}
            }
        });
        let (pair, published) = (Arc::clone(&self.state.tls), Arc::clone(&self.state.published));
        for task in [
            Box::pin(tls::follow(pair, published)) as BoxFuture<'static, ()>,
            Box::pin(self.upkeep.clone().sweep()),
            Box::pin(self.upkeep.clone().follow()),
        ] {
            let stop = self.stop_background.clone();
            self.background.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task => {}
                }
            });
        }
    }

    /// The file, and beside it the Secret when a cluster is at hand.
    fn spawn_config(&self, options: &Options, environment: &Environment, updates: mpsc::Sender<Update>) {
        let dialect = dialect(options);
        let (Some(name), Some(access)) = (options.config_secret.clone(), environment.cluster.clone()) else {
            if options.config_secret.is_some() {
                tracing::warn!(
                    component = "config",
                    "No cluster at hand, the config file alone decides"
                );
            }
            self.background
                .spawn(watch::run(options.config_files.clone(), dialect, updates));
            return;
        };
        let (file, from_file) = mpsc::channel(UPDATE_QUEUE);
        let (events, from_watch) = mpsc::channel(UPDATE_QUEUE);
        self.background
            .spawn(watch::run(options.config_files.clone(), dialect, file));
        self.background.spawn(secret::watch(access, name, events));
        self.background.spawn(sources::merge(
            from_file,
            from_watch,
            updates,
            (environment.watch_grace, dialect),
        ));
    }

    /// The orderly end: readiness off, endpoint removal, running calls, then everything else.
    pub async fn drain(self) {
        self.state.health.drain();
        tracing::info!(component = "broker", "Draining");
        sleep(self.endpoint_removal).await;
        self.stop_listening.cancel();
        self.state.streams.close_all();
        self.listeners.close();
        if timeout(IN_FLIGHT, self.listeners.wait()).await.is_err() {
            tracing::warn!(component = "broker", "Calls still running are cut");
        }
        self.upkeep.close_own().await;
        self.stop_background.cancel();
        self.background.close();
        let _ = timeout(LAST_TASKS, self.background.wait()).await;
        let traces = self.traces;
        let _ = tokio::task::spawn_blocking(move || traces.flush()).await;
        tracing::info!(component = "broker", "Stopped");
    }
}
