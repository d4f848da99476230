//! Wires the process: client, watches, election, workers, probes, and the order in which it stops.

use std::{error::Error as _, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig},
    runtime::events::EventType,
};
use mcp_gateway_api::{names, object_key::ObjectKey};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    blueprint::Settings,
    cache::Cache,
    context::{Context, Parts},
    events::Events,
    health,
    kinds::Kind,
    leader::Election,
    logging,
    metrics::Metrics,
    options::{Environment, Options, WebhookCerts},
    queue::{Queue, WorkItem},
    reconcile,
    sibling::{self, Siblings},
    uninstall,
    watch::Watcher,
};

/// Most evaluations at once.
const WORKERS: usize = 8;
/// How long running evaluations may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(20);
/// How long they may take when the lease is lost: another replica leads soon after.
const HANDOVER: Duration = Duration::from_secs(3);
/// How long the election may take to end: one attempt.
const LAST_ATTEMPT: Duration = Duration::from_secs(5);
/// How often the caches are looked at until they are synced.
const SYNC_POLL: Duration = Duration::from_millis(50);

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start: no API server address, a port that is taken.
pub async fn run(options: Options) -> anyhow::Result<()> {
    logging::install(&options.log_level, options.log_format);
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let environment = Environment::read(|name| std::env::var(name).ok());
    let client = client(&options).await?;
    let context = Arc::new(context(&options, &environment, client.clone())?);
    let mut tasks = JoinSet::new();
    serve(&mut tasks, &options, &context).await?;
    let watcher = Watcher {
        client: client.clone(),
        cache: Arc::clone(&context.cache),
        queue: Arc::clone(&context.queue),
        metrics: Arc::clone(&context.metrics),
    };
    for kind in Kind::ALL {
        tasks.spawn(watcher.clone().run(kind));
    }
    let identity = environment
        .pod
        .clone()
        .unwrap_or_else(|| format!("operator-{:08x}", rand::random::<u32>()));
    let election = Arc::new(Election::new(&context, identity));
    let stop = CancellationToken::new();
    let drained = CancellationToken::new();
    let (leads, candidate) = candidate(&options, &election, drained.clone());
    let finished = Arc::clone(&context);
    let work = Work {
        context,
        leads,
        stop: stop.clone(),
        options,
        siblings: Siblings::default(),
    };
    let worker = tokio::spawn(work.run());
    stopped().await;
    tracing::info!("Stopping");
    stop.cancel();
    let left = async {
        if environment.pod.is_some() {
            uninstall::leave(&finished).await;
        }
    };
    let candidacy = Candidacy {
        election,
        candidate,
        drained,
    };
    end(worker, left, candidacy).await;
    Ok(())
}

/// This replica's part in the election.
struct Candidacy {
    election: Arc<Election>,
    candidate: Option<JoinHandle<()>>,
    /// Ends the renewals.
    drained: CancellationToken,
}

/// The order of a stop: work that is under way ends, then `left` is done, and only then the lease is given up. It is
/// renewed until there, so that nobody else works while something of ours is under way (operator.md 11.1).
async fn end(worker: JoinHandle<()>, left: impl Future<Output = ()>, candidacy: Candidacy) {
    let running = worker.abort_handle();
    if tokio::time::timeout(DRAIN, worker).await.is_err() {
        tracing::warn!("Evaluations did not end in time and are broken off");
        running.abort();
    }
    left.await;
    candidacy.drained.cancel();
    if let Some(candidate) = candidacy.candidate {
        drop(tokio::time::timeout(LAST_ATTEMPT, candidate).await);
        candidacy.election.release().await;
    }
}

/// Outside of a cluster only the kubeconfig is of interest; that there is no service account either is not.
fn no_cluster(error: &InferConfigError) -> anyhow::Error {
    let why = error.source().unwrap_or(error);
    anyhow!("no cluster is known: {why}; set KUBECONFIG, or name a file with --kubeconfig")
}

async fn client(options: &Options) -> anyhow::Result<Client> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let used = || format!("use {}, which --kubeconfig names", path.display());
            let file = Kubeconfig::read_from(path).with_context(used)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(used)?
        }
        None => Config::infer().await.map_err(|error| no_cluster(&error))?,
    };
    Client::try_from(config).context("make client")
}

fn context(options: &Options, environment: &Environment, client: Client) -> anyhow::Result<Context> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("make HTTP client")?;
    let cache = Arc::new(Cache::default());
    Ok(Context::new(Parts {
        events: Events::new(client.clone(), environment.pod.clone()),
        client,
        queue: Arc::new(Queue::following(cache.version())),
        cache,
        metrics: Arc::new(Metrics::new()),
        settings: Arc::new(Settings {
            broker_image: environment.broker_image.clone(),
            broker_log_level: environment.broker_log_level,
            cluster_domain: options.cluster_domain.clone(),
            namespace: environment.namespace.clone(),
            manages_webhook: options.webhook_certs == WebhookCerts::Managed,
            webhook_configuration_owner: environment.webhook_configuration_owner.clone(),
            operator_condition: environment.operator_condition.clone(),
        }),
        http,
        status_interval: options.status_interval,
    }))
}

async fn serve(tasks: &mut JoinSet<()>, options: &Options, context: &Context) -> anyhow::Result<()> {
    let routers = [
        (options.health_addr, health::probes(Arc::clone(&context.cache))),
        (
            options.metrics_addr,
            health::metrics(Arc::clone(&context.metrics), Arc::clone(&context.cache)),
        ),
    ];
    for (address, router) in routers {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%address, %error, "Listener ended");
            }
        });
    }
    Ok(())
}

/// Starts the election; without one this replica leads.
fn candidate(
    options: &Options,
    election: &Arc<Election>,
    stop: CancellationToken,
) -> (watch::Receiver<bool>, Option<JoinHandle<()>>) {
    let leads = election.leads();
    if !options.leader_elect {
        election.assume();
        return (leads, None);
    }
    let election = Arc::clone(election);
    (leads, Some(tokio::spawn(async move { election.run(stop).await })))
}

/// The part that works while this replica leads.
struct Work {
    context: Arc<Context>,
    leads: watch::Receiver<bool>,
    stop: CancellationToken,
    options: Options,
    siblings: Siblings,
}

impl Work {
    async fn run(mut self) {
        while !self.context.cache.is_synced() {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SYNC_POLL) => {}
            }
        }
        tracing::info!("Caches are synced");
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                turned = self.leads.wait_for(|leads| *leads) => if turned.is_err() { return },
            }
            if self.is_younger().await {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(sibling::INTERVAL) => continue,
                }
            }
            self.lead().await;
            self.context.queue.clear();
        }
    }

    /// True while an older install works in this cluster; said once in the log and by an Event on our Deployment.
    async fn is_younger(&self) -> bool {
        if !self.options.leader_elect {
            return false;
        }
        let namespace = &self.context.settings.namespace;
        let Some(elder) = self.siblings.elder(&self.context.client, namespace).await else {
            return false;
        };
        let note = format!("the operator in namespace {elder} is older and works; this one stays passive");
        tracing::warn!(elder, "Another operator works in this cluster");
        let deployment = ObjectKey::new(namespace.as_str(), names::OPERATOR);
        let api = self.context.api(Kind::Deployment, namespace);
        if let Ok(Some(object)) = api.get_opt(&deployment.name).await {
            let object = crate::apply::raw(object);
            let subject = (Kind::Deployment, &object);
            self.context
                .events
                .publish(subject, EventType::Warning, "AnotherOperator", &note)
                .await;
        }
        true
    }

    /// Works until the lease is lost or the process stops; evaluations under way are ended first.
    async fn lead(&self) {
        let queue = Arc::clone(&self.context.queue);
        self.start();
        let slots = Arc::new(Semaphore::new(WORKERS));
        let mut leads = self.leads.clone();
        let mut running = JoinSet::new();
        let mut siblings = tokio::time::interval(sibling::INTERVAL);
        let mut resync = tokio::time::interval(self.options.resync_interval);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = async { drop(leads.wait_for(|leads| !*leads).await) } => break,
                _ = resync.tick() => self.start(),
                _ = siblings.tick() => if self.is_younger().await { break },
                Some(_) = running.join_next() => {}
                item = next(&queue, &slots) => {
                    let Some(work) = item else { break };
                    running.spawn(work_on(Arc::clone(&self.context), work));
                }
            }
        }
        let ended = async { while running.join_next().await.is_some() {} };
        if self.stop.is_cancelled() {
            ended.await;
        } else if tokio::time::timeout(HANDOVER, ended).await.is_err() {
            tracing::warn!("Evaluations did not end before the lease ran out and are broken off");
            running.shutdown().await;
        }
    }

    fn start(&self) {
        let queue = &self.context.queue;
        queue.add(self.context.cache.everything());
        queue.add([
            WorkItem::Claims,
            WorkItem::WebhookCertificates,
            WorkItem::SupplementaryWebhooks,
            WorkItem::Upgradeable,
        ]);
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// An item, the count of changes that it needs, and the permission to run.
type Taken = ((WorkItem, u64), Slot);

async fn next(queue: &Queue, slots: &Arc<Semaphore>) -> Option<Taken> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    Some((queue.take().await, slot))
}

async fn work_on(context: Arc<Context>, ((item, version), slot): Taken) {
    let queue = Arc::clone(&context.queue);
    context.snapshot_since(version);
    let outcome = reconcile::run(context, &item).await;
    queue.finish(&item, outcome);
    drop(slot);
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("Signals cannot be received");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests;
