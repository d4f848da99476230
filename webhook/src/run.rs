//! Wires the process: listeners, watches, certificate, probes, and the order in which it stops.

use std::{net::TcpListener, time::Duration};

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Snapshot, WorldReader, feed},
    decision::Decider,
    health::{self, Readiness},
    kube_cluster::KubeCluster,
    logging,
    metrics::Metrics,
    options::Options,
    service,
    tls::{self, Reloader},
};

/// After SIGTERM: time for endpoints and the API server's connections to move to another replica while this one
/// still serves.
const LEAVE: Duration = Duration::from_secs(5);
/// Time for requests under way to end, more than their longest deadline in our configurations.
const FINISH: Duration = Duration::from_secs(10);
/// Requests to the API server never wait longer.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When an address cannot be bound or the cluster's address is not known.
pub async fn run(options: Options) -> anyhow::Result<()> {
    logging::install(&options.log_level, options.log_format);
    // A provider that is installed already is ours too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client(&options).await?;
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    let (snapshot, world) = WorldReader::new(Snapshot::default());
    feed::start(&client, &snapshot, &metrics, &stop);

    let (pairs, secret) = watch::channel(None);
    let reloader = Reloader::new(options.cert_dir.clone()).reading(secret);
    if let Some(name) = options.cert_secret.clone() {
        let source = (options.claims_namespace(), name);
        tokio::spawn(stop.clone().run_until_cancelled_owned(tls::secret::follow(
            client.clone(),
            source,
            pairs,
        )));
    }
    let readiness = Readiness::new(world.clone(), reloader.pair());
    let mut config = reloader.config();
    tokio::spawn(stop.clone().run_until_cancelled_owned(reloader.run()));

    let admission = bind(options.bind_addr)?;
    let probes = axum_server::from_tcp(bind(options.health_addr)?)?;
    tokio::spawn(probes.serve(health::probes(readiness.clone()).into_make_service()));
    let exposition = axum_server::from_tcp(bind(options.metrics_addr)?)?;
    tokio::spawn(exposition.serve(health::metrics(metrics.clone()).into_make_service()));

    let cluster = KubeCluster::new(client, options.claims_namespace());
    let advisory = if options.advisory {
        service::advisory(world.clone(), metrics.clone())
    } else {
        Router::new()
    };
    let router = service::router(Decider::new(cluster, world, Timestamp::now), metrics).merge(advisory);
    let router = health::giving_up(router, readiness.clone());
    let handle = Handle::new();
    tokio::spawn(stop_in_order(readiness, handle.clone(), stop.clone()));
    // Connections wait in the listener's queue until there is a certificate.
    let serve = async {
        let config = config
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|config| config.clone());
        let Some(config) = config else { return Ok(()) };
        tracing::info!(addr = %options.bind_addr, "Serving");
        axum_server::from_tcp_rustls(admission, config)?
            .handle(handle)
            .serve(router.into_make_service())
            .await
    };
    let served = stop.run_until_cancelled(serve).await;
    stop.cancel();
    served.unwrap_or(Ok(())).context("serve admission")
}

fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn client(options: &Options) -> anyhow::Result<Client> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig =
                Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("find the cluster")?,
    };
    config.connect_timeout = Some(API_TIMEOUT);
    Ok(Client::try_from(config)?)
}

/// On a signal: stop being ready, keep serving while others take over, then finish what is under way.
async fn stop_in_order(readiness: Readiness, handle: Handle<std::net::SocketAddr>, stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    let leave = tokio::select! {
        _ = terminate.recv() => LEAVE,
        _ = interrupt.recv() => Duration::ZERO,
    };
    tracing::info!("Stopping");
    readiness.drain();
    tokio::time::sleep(leave).await;
    handle.graceful_shutdown(Some(FINISH));
    // Before the first certificate nothing is being served, so nothing else would end the process.
    if handle.connection_count() == 0 {
        stop.cancel();
    }
}
