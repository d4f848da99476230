//! What Istio's deployment controller would do for a Gateway: a Service and a Deployment of Envoy, owned by the Gateway.
//! The pods run on the same node as all others, so that a killed Envoy starts again.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use gateway_api::apis::standard::gateways::Gateway;
use kube::api::Api;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::apply::{ApplyError, apply};
use crate::control_plane::GATEWAY_CLASSES;
use crate::envoy::{ADMIN_PORT, BOOTSTRAP_VARIABLE, TOKEN_DIR, bootstrap};
use crate::forward::Listener;
use crate::node::images::ENVOY_IMAGE;
use crate::state_dir::StateDir;

/// The label by which istiod and Services find a Gateway's pods.
pub(crate) const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
const MANAGER: &str = "kit-gateways";
/// Envoy reads its token once, at its start: it must outlive the sandbox.
const TOKEN_SECONDS: u32 = 7 * 24 * 3600;
const RETRY: Duration = Duration::from_secs(2);

/// Plays the Gateways of the known classes until the runtime ends; `gateways.json` lists their listeners.
pub(crate) async fn play(client: Client, state: StateDir) {
    let gateways = watcher(Api::<Gateway>::all(client.clone()), watcher::Config::default());
    let (store, writer) = reflector::store();
    let mut events = reflector::reflector(writer, gateways).default_backoff().boxed();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                if let Event::Apply(gateway) | Event::InitApply(gateway) = event {
                    tokio::spawn(bring_about(client.clone(), Arc::new(gateway)));
                }
                write_listeners(&state, &store.state());
            }
            Ok(None) => return,
            Err(error) => warn!(%error, "Watch of Gateways failed"),
        }
    }
}

fn write_listeners(state: &StateDir, gateways: &[Arc<Gateway>]) {
    let mut listeners: Vec<Listener> = gateways.iter().flat_map(|gateway| listeners(gateway)).collect();
    listeners.sort();
    let written = serde_json::to_vec(&listeners)
        .map_err(std::io::Error::from)
        .and_then(|text| {
            let temporary = state.gateways().with_extension("tmp");
            std::fs::write(&temporary, text)?;
            std::fs::rename(temporary, state.gateways())
        });
    if let Err(error) = written {
        warn!(%error, "List of listeners cannot be written");
    }
}

fn listeners(gateway: &Gateway) -> Vec<Listener> {
    let class = &gateway.spec.gateway_class_name;
    if !GATEWAY_CLASSES.contains(&class.as_str()) {
        return Vec::new();
    }
    let (name, namespace) = (gateway.name_any(), gateway.namespace().unwrap_or_default());
    let host = format!("{}.{namespace}.svc.cluster.local", child_name(&name, class));
    let speaks_tls = |port: i32| {
        let mut listeners = gateway.spec.listeners.iter();
        listeners.any(|listener| listener.port == port && listener.protocol == "HTTPS")
    };
    let listener = |number: i32| {
        Some(Listener {
            namespace: namespace.clone(),
            gateway: name.clone(),
            host: host.clone(),
            port: u16::try_from(number).ok()?,
            tls: speaks_tls(number),
        })
    };
    ports(gateway).into_iter().filter_map(listener).collect()
}

/// Applies the Gateway's children, once more after an error. Deletion is the garbage collector's business.
async fn bring_about(client: Client, gateway: Arc<Gateway>) {
    for attempt in 0..5 {
        match apply_children(&client, &gateway).await {
            Ok(()) => return,
            Err(error) => {
                warn!(gateway = gateway.name_any(), attempt, %error, "Gateway cannot be played yet");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn apply_children(client: &Client, gateway: &Gateway) -> Result<(), ApplyError> {
    let class = gateway.spec.gateway_class_name.as_str();
    if !GATEWAY_CLASSES.contains(&class) || gateway.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let namespace = gateway.namespace().unwrap_or_default();
    for child in [service_account(gateway), service(gateway), deployment(gateway)] {
        apply(client, child, MANAGER, &namespace).await?;
    }
    info!(gateway = gateway.name_any(), namespace, class, "Gateway played");
    Ok(())
}

/// The name of the Gateway's Service and Deployment.
pub(crate) fn child_name(gateway: &str, class: &str) -> String {
    format!("{gateway}-{class}")
}

fn metadata(gateway: &Gateway) -> Value {
    json!({
        "name": child_name(&gateway.name_any(), &gateway.spec.gateway_class_name),
        "namespace": gateway.namespace(),
        "labels": labels(gateway),
        "ownerReferences": [gateway.controller_owner_ref(&())],
    })
}

fn labels(gateway: &Gateway) -> Value {
    json!({
        (GATEWAY_LABEL): gateway.name_any(),
        "gateway.networking.k8s.io/gateway-class-name": gateway.spec.gateway_class_name,
    })
}

/// The distinct listener ports, in order.
pub(crate) fn ports(gateway: &Gateway) -> Vec<i32> {
    let mut ports: Vec<i32> = gateway
        .spec
        .listeners
        .iter()
        .map(|listener| listener.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn service_account(gateway: &Gateway) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(gateway)})
}

fn service(gateway: &Gateway) -> Value {
    let ports: Vec<Value> = ports(gateway)
        .into_iter()
        .map(|port| json!({"name": format!("port-{port}"), "port": port, "targetPort": port, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(gateway),
        "spec": {"type": "ClusterIP", "selector": {(GATEWAY_LABEL): gateway.name_any()}, "ports": ports},
    })
}

fn deployment(gateway: &Gateway) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(gateway),
        "spec": {
            "selector": {"matchLabels": {(GATEWAY_LABEL): gateway.name_any()}},
            "template": {
                "metadata": {"labels": labels(gateway)},
                "spec": {
                    "serviceAccountName": child_name(&gateway.name_any(), &gateway.spec.gateway_class_name),
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [proxy(gateway)],
                    "volumes": [{"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
                        "audience": "istio-ca", "expirationSeconds": TOKEN_SECONDS, "path": "istio-token"}}]}}],
                },
            },
        },
    })
}

fn proxy(gateway: &Gateway) -> Value {
    let config = bootstrap(&gateway.namespace().unwrap_or_default(), &gateway.name_any()).to_string();
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    json!({
        "name": "istio-proxy",
        "image": ENVOY_IMAGE,
        "args": ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"],
        "env": [
            {"name": "POD_IP", "valueFrom": field("status.podIP")},
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            {"name": BOOTSTRAP_VARIABLE, "value": config},
        ],
        "ports": [{"name": "admin", "containerPort": ADMIN_PORT}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": ADMIN_PORT}, "periodSeconds": 2},
        "volumeMounts": [{"name": "istio-token", "mountPath": TOKEN_DIR}],
    })
}
