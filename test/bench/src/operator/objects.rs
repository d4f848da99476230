//! What is there before the operator starts, and what the played controllers say about it.

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::registration::MCPServerRegistration;
use serde_json::{Value, json};
use std::{net::SocketAddr, process::Command};

/// Requests at once.
const PARALLEL: usize = 16;
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// How much there is.
pub(crate) struct Scale {
    pub(crate) namespaces: usize,
    pub(crate) registrations: usize,
    pub(crate) client: Client,
}

/// Name of the `index`-th namespace.
pub(crate) fn namespace(index: usize) -> String {
    format!("scale-{index}")
}

/// Address of the broker of the `index`-th namespace.
pub(crate) fn address(index: usize) -> String {
    format!("10.64.{}.{}", index / 250, index % 250 + 1)
}

/// CRDs, roles and the operator's account; returns a token of it.
pub(crate) async fn install(scale: &Scale) -> anyhow::Result<String> {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");
    let kubectl = |words: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("kubectl").args(words).output().context("kubectl")?;
        ensure!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    kubectl(&["apply", "--server-side", "-k", &format!("{config}/crd")])?;
    kubectl(&["create", "namespace", "mcp-system"])?;
    kubectl(&[
        "create",
        "serviceaccount",
        "mcp-gateway-controller",
        "-n",
        "mcp-system",
    ])?;
    kubectl(&[
        "apply",
        "-n",
        "mcp-system",
        "-f",
        &format!("{config}/rbac/operator.yaml"),
    ])?;
    kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/mcpgatewayextensions.mcp.kuadrant.io",
        "crd/mcpserverregistrations.mcp.kuadrant.io",
        "--timeout=30s",
    ])?;
    scale.client.apiserver_version().await?;
    kubectl(&[
        "create",
        "token",
        "mcp-gateway-controller",
        "-n",
        "mcp-system",
        "--duration=4h",
    ])
}

/// Everything, a namespace at a time.
pub(crate) async fn create(scale: &Scale) -> anyhow::Result<()> {
    stream::iter(0..scale.namespaces)
        .map(|index| create_namespace(scale, index))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await
}

async fn create_namespace(scale: &Scale, index: usize) -> anyhow::Result<()> {
    let name = namespace(index);
    put(scale, "v1", "Namespace", json!({"metadata": {"name": name}})).await?;
    let hosts = [
        ("mcp", format!("mcp.{name}.example")),
        ("mcps", format!("*.{name}.local")),
    ];
    let listeners = hosts.map(
        |(listener, host)| json!({"name": listener, "hostname": host, "port": 8080, "protocol": "HTTP"}),
    );
    let entries = ["mcp", "mcps"].map(|listener| {
        json!({"name": listener, "attachedRoutes": 0, "supportedKinds": [],
        "conditions": [condition("Accepted"), condition("Programmed")]})
    });
    let meta = |object: &str| json!({"name": object, "namespace": name});
    put(
        scale,
        GATEWAY_API,
        "Gateway",
        json!({"metadata": meta("gw"),
        "spec": {"gatewayClassName": "played", "listeners": listeners}, "status": {"listeners": entries}}),
    )
    .await?;
    for number in 0..scale.registrations {
        create_server(scale, &name, &format!("s{number}")).await?;
    }
    put(
        scale,
        "mcp.kuadrant.io/v1alpha1",
        "MCPGatewayExtension",
        json!({"metadata": meta("ext"),
        "spec": {"targetRef": {"name": "gw", "sectionName": "mcp"}}}),
    )
    .await?;
    put(scale, "discovery.k8s.io/v1", "EndpointSlice", json!({
        "metadata": {"name": "mcp-gateway-played", "namespace": name, "labels": {"kubernetes.io/service-name": "mcp-gateway"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address(index)], "conditions": {"ready": true}}]})).await
}

/// A condition that is True.
fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": kind, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
}

/// A Service of one port and an accepted HTTPRoute to it.
async fn routed(
    scale: &Scale,
    (name, server): (&str, &str),
    service: Value,
    port: u16,
) -> anyhow::Result<()> {
    let meta = json!({"name": server, "namespace": name});
    let accepted = condition("Accepted");
    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "sectionName": "mcps"});
    put(scale, "v1", "Service", json!({"metadata": meta, "spec": service})).await?;
    put(scale, GATEWAY_API, "HTTPRoute", json!({"metadata": meta,
            "spec": {"parentRefs": [parent], "hostnames": [format!("{server}.{name}.local")],
                "rules": [{"backendRefs": [{"name": server, "port": port}]}]},
            "status": {"parents": [{"controllerName": "example.com/played", "parentRef": parent, "conditions": [accepted]}]}})).await
}

/// A route that leads out of the cluster, to a server at `address`.
pub(crate) async fn route_to(
    scale: &Scale,
    name: &str,
    server: &str,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let outside = json!({"type": "ExternalName", "externalName": address.ip().to_string(),
        "ports": [{"port": address.port()}]});
    routed(scale, (name, server), outside, address.port()).await
}

/// A Service, an accepted HTTPRoute and a registration.
async fn create_server(scale: &Scale, name: &str, server: &str) -> anyhow::Result<()> {
    let meta = json!({"name": server, "namespace": name});
    routed(scale, (name, server), json!({"ports": [{"port": 80}]}), 80).await?;
    put(
        scale,
        "mcp.kuadrant.io/v1alpha1",
        "MCPServerRegistration",
        json!({"metadata": meta,
            "spec": {"targetRef": {"name": server}, "prefix": format!("{server}_")}}),
    )
    .await?;
    Ok(())
}

/// Creates an object and writes its status, if it has one.
async fn put(scale: &Scale, version: &str, kind: &str, mut object: Value) -> anyhow::Result<()> {
    let status = object
        .as_object_mut()
        .and_then(|members| members.remove("status"));
    let (name, namespace) = (
        super::text(&object, "/metadata/name").to_owned(),
        super::text(&object, "/metadata/namespace").to_owned(),
    );
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(scale.client.clone(), &resource)
    } else {
        Api::namespaced_with(scale.client.clone(), &namespace, &resource)
    };
    if let Some(members) = object.as_object_mut() {
        members.insert("apiVersion".to_owned(), json!(resource.api_version));
        members.insert("kind".to_owned(), json!(kind));
    }
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await
        .with_context(|| format!("create {kind} {namespace}/{name}"))?;
    if let Some(status) = status {
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(&name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("status of {kind} {namespace}/{name}"))?;
    }
    Ok(())
}

/// Registrations that are ready.
pub(crate) async fn ready(scale: &Scale) -> anyhow::Result<usize> {
    let api: Api<MCPServerRegistration> = Api::all(scale.client.clone());
    let list = api.list(&ListParams::default()).await?;
    let is_ready = |registration: &&MCPServerRegistration| {
        let conditions = registration.status.iter().flat_map(|status| &status.conditions);
        conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(list.items.iter().filter(is_ready).count())
}

/// Changes the first registration of the first namespace.
pub(crate) async fn change(scale: &Scale, patch: Value) -> anyhow::Result<()> {
    let api: Api<MCPServerRegistration> = Api::namespaced(scale.client.clone(), &namespace(0));
    api.patch("s0", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
