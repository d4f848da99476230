//! The watch of the config Secret against a small API server (D10).

use crate::fixture::Server;
use crate::world::{World, config, entry, eventually, free_port};
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use futures::StreamExt as _;
use mcp_gateway_broker::kubernetes::secret::ClusterAccess;
use mcp_gateway_broker::run::Environment;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

struct Api {
    document: Mutex<String>,
    version: AtomicU64,
    down: AtomicBool,
    lists: AtomicU64,
    events: broadcast::Sender<String>,
}

impl Api {
    fn secret(&self) -> Value {
        let data = base64::engine::general_purpose::STANDARD.encode(self.document.lock().unwrap().as_bytes());
        let version = self.version.load(Ordering::Relaxed).to_string();
        json!({"metadata": {"name": "mcp-gateway-config", "resourceVersion": version}, "data": {"config.yaml": data}})
    }

    fn write(&self, document: &str) {
        *self.document.lock().unwrap() = document.to_owned();
        self.version.fetch_add(1, Ordering::Relaxed);
        let _ = self
            .events
            .send(json!({"type": "MODIFIED", "object": self.secret()}).to_string());
    }
}

async fn secrets(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!(query["fieldSelector"], "metadata.name=mcp-gateway-config");
    if api.down.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if headers["authorization"] != "Bearer pod-token" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !query.contains_key("watch") {
        api.lists.fetch_add(1, Ordering::Relaxed);
        let version = api.version.load(Ordering::Relaxed).to_string();
        return axum::Json(json!({"metadata": {"resourceVersion": version}, "items": [api.secret()]}))
            .into_response();
    }
    let events = tokio_stream::wrappers::BroadcastStream::new(api.events.subscribe());
    // As the real one: what was written after the list is in the watch.
    let behind = query["resourceVersion"].parse::<u64>().unwrap() < api.version.load(Ordering::Relaxed);
    let missed = behind.then(|| Ok(json!({"type": "MODIFIED", "object": api.secret()}).to_string()));
    let events = futures::stream::iter(missed).chain(events);
    let lines = events
        .map(|event| event.map_err(|_| std::io::Error::other("lagged")))
        .map(|event| match event {
            Ok(line) if line == "break" => Err(std::io::Error::other("broken")),
            other => other.map(|line| line + "\n"),
        });
    Body::from_stream(lines).into_response()
}

/// An API server with this config, the environment of a pod beside it, and the folder of the pod's account.
async fn cluster(document: String) -> (Arc<Api>, Environment, tempfile::TempDir) {
    let api = Arc::new(Api {
        document: Mutex::new(document),
        version: AtomicU64::new(1),
        down: AtomicBool::default(),
        lists: AtomicU64::default(),
        events: broadcast::channel(16).0,
    });
    let app = Router::new()
        .route("/api/v1/namespaces/team-a/secrets", get(secrets))
        .with_state(Arc::clone(&api));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("token"), "pod-token\n").unwrap();
    let environment = World::environment(Some(ClusterAccess {
        base,
        account: account.path().to_owned(),
    }));
    (api, environment, account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d10_the_watch_serves_a_change_at_once_and_the_file_is_the_fallback() {
    let (one, two) = (
        Server::start("one", &["a"]).await,
        Server::start("two", &["b"]).await,
    );
    let (api, environment, _account) = cluster(config(&[entry(&one, "")])).await;
    let flags = ["--mcp-gateway-config-secret=team-a/mcp-gateway-config"];
    // Two replicas.
    let replica = async || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), config(&[])).unwrap();
        let world = World::broker_in(environment.clone(), free_port(), folder, &flags).await;
        let client = world.direct().initialized().await;
        (world, client)
    };
    let replicas = [replica().await, replica().await];
    let source = async |expected: &str, tools: &[&str]| {
        let mut hashes = Vec::new();
        for (world, client) in &replicas {
            let hash = eventually(expected, || async {
                let config = world.status().await["config"].take();
                let served = config["source"] == expected && client.tools().await == tools;
                served.then(|| config["hash"].as_str().unwrap().to_owned())
            });
            hashes.push(hash.await);
        }
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[0].len(), 16);
    };
    source("watch", &["a"]).await;
    api.write(&config(&[entry(&two, "")]));
    source("watch", &["b"]).await;
    // A written file changes nothing while the watch is healthy; a lost watch gives way to it.
    for (world, _) in &replicas {
        world.write_config(&config(&[entry(&one, "file_")]));
    }
    api.down.store(true, Ordering::Relaxed);
    let _ = api.events.send("break".to_owned());
    source("file", &["file_a"]).await;
    api.down.store(false, Ordering::Relaxed);
    source("watch", &["b"]).await;
    assert!(
        api.lists.load(Ordering::Relaxed) >= 4,
        "both list anew after the loss"
    );
    let _ = api
        .events
        .send(json!({"type": "ERROR", "object": {"code": 410}}).to_string());
    api.write(&config(&[entry(&one, "again_")]));
    source("watch", &["again_a"]).await;
    // Only an expired watch is taken up again without a word.
    api.down.store(true, Ordering::Relaxed);
    let _ = api
        .events
        .send(json!({"type": "ERROR", "object": {"code": 500}}).to_string());
    source("file", &["file_a"]).await;
}
