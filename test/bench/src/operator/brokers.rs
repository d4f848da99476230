//! Plays the brokers: says that every Deployment is complete, and answers `/status` at an address for each namespace with
//! whatever the config Secret holds.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    extract::{ConnectInfo, State, connect_info::Connected},
    routing::get,
    serve::IncomingStream,
};
use futures::TryStreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::objects::{Scale, address, namespace};

/// What each broker serves, by its address.
type Served = Arc<Mutex<HashMap<String, Value>>>;

/// Starts to play.
pub(crate) async fn play(scale: &Scale) -> anyhow::Result<()> {
    let route = Command::new("ip")
        .args(["route", "add", "local", "10.64.0.0/16", "dev", "lo"])
        .output()?;
    ensure!(
        route.status.success(),
        "{}",
        String::from_utf8_lossy(&route.stderr)
    );
    let served = Served::default();
    let listener = TcpListener::bind("0.0.0.0:8080").await.context("port 8080")?;
    let router = Router::new()
        .route("/status", get(status))
        .with_state(Arc::clone(&served));
    tokio::spawn(
        async move { axum::serve(listener, router.into_make_service_with_connect_info::<At>()).await },
    );
    let addresses: HashMap<String, String> = (0..scale.namespaces)
        .map(|index| (namespace(index), address(index)))
        .collect();
    tokio::spawn(follow_documents(scale.client.clone(), served, addresses));
    tokio::spawn(follow_deployments(scale.client.clone()));
    Ok(())
}

/// The address at which a connection came in.
#[derive(Clone)]
struct At(String);

impl Connected<IncomingStream<'_, TcpListener>> for At {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(
            stream
                .io()
                .local_addr()
                .as_ref()
                .map(SocketAddr::ip)
                .map_or_else(|_| String::new(), |ip| ip.to_string()),
        )
    }
}

async fn status(State(served): State<Served>, ConnectInfo(At(address)): ConnectInfo<At>) -> Json<Value> {
    let served = served.lock().unwrap_or_else(PoisonError::into_inner);
    Json(served.get(&address).cloned().unwrap_or_else(|| json!({})))
}

async fn follow_documents(client: kube::Client, served: Served, addresses: HashMap<String, String>) {
    let config = watcher::Config::default().fields("metadata.name=mcp-gateway-config");
    let api: Api<Secret> = Api::all(client);
    let secrets = watcher(api, config).default_backoff().applied_objects();
    let done = secrets
        .try_for_each(|secret| {
            let document = secret
                .data
                .as_ref()
                .and_then(|data| data.get("config.yaml"))
                .map(|data| data.0.clone());
            let namespace = secret.namespace().unwrap_or_default();
            if let (Some(address), Some(document)) = (addresses.get(&namespace), document) {
                let answer = answer(&String::from_utf8_lossy(&document));
                served
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(address.clone(), answer);
            }
            std::future::ready(Ok(()))
        })
        .await;
    drop(done);
}

/// What a broker with this document says when all is well.
fn answer(document: &str) -> Value {
    let hash = document
        .lines()
        .find_map(|line| line.strip_prefix("hash: "))
        .unwrap_or_default();
    let names = document
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- name: "));
    let servers: Vec<Value> = names
        .map(|name| json!({"name": name, "ready": true, "totalTools": 3}))
        .collect();
    json!({"servers": servers, "config": {"hash": hash.trim_matches(['"', '\''])}})
}

async fn follow_deployments(client: kube::Client) {
    let config = watcher::Config::default().fields("metadata.name=mcp-gateway");
    let deployments = watcher(Api::<Deployment>::all(client.clone()), config)
        .default_backoff()
        .applied_objects();
    let done = deployments
        .try_for_each_concurrent(8, |deployment| {
            let client = client.clone();
            async move {
                let generation = deployment.metadata.generation;
                let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
                if seen == generation {
                    return Ok(());
                }
                let api: Api<Deployment> = Api::namespaced(client, &deployment.namespace().unwrap_or_default());
                let status = json!({"status": {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
                    "readyReplicas": 1, "availableReplicas": 1}});
                // A Deployment that changed meanwhile comes again.
                drop(api.patch_status("mcp-gateway", &PatchParams::default(), &Patch::Merge(status)).await);
                Ok(())
            }
        })
        .await;
    drop(done);
}
