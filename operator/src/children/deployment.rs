//! Deployment `mcp-gateway` (operator.md 5.2): only the fields we own; `command` is merged with the live one, because
//! server-side apply takes that list as one value.

use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Value, json};

use super::{Child, command, common_labels, env};
use crate::{
    blueprint::Blueprint,
    kinds::Kind,
    preserve::{MergedCommand, merge},
};

/// Lifetime of the broker's API token in seconds.
const TOKEN_SECONDS: i64 = 3607;
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "mcp-gateway-api-token";
const CONFIG_VOLUME: &str = "config-volume";
/// File mode that the API server gives volumes: 0644.
const FILE_MODE: i32 = 420;

/// The Deployment for `blueprint`; `live` is the object as it is now, whose user flags are kept.
pub(crate) fn build(blueprint: &Blueprint, live: Option<&Value>) -> Child {
    let merged = merge_command(blueprint, live);
    let spec = json!({"spec": {
        "selector": {"matchLabels": common_labels()},
        "template": {
            "metadata": {
                "labels": common_labels(),
                "annotations": {names::ENV_SECRETS_HASH_ANNOTATION: blueprint.env_secrets_hash},
            },
            "spec": {
                "serviceAccountName": names::BROKER,
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container(blueprint, &merged.command)],
                "volumes": volumes(),
            },
        },
    }});
    Child::owned(blueprint, Kind::Deployment, names::BROKER, spec)
        .annotation(names::OWNED_FLAGS_ANNOTATION, &merged.owned_flags)
        .annotation(names::GATEWAY_ANNOTATION, &blueprint.gateway.to_string())
}

/// True when the live broker was made for this Gateway; one of an older version does not say for which, and counts.
pub(crate) fn is_for(live: &Value, gateway: &ObjectKey) -> bool {
    let annotations = live.pointer("/metadata/annotations");
    let recorded = annotations.and_then(|annotations| annotations.get(names::GATEWAY_ANNOTATION));
    recorded
        .and_then(Value::as_str)
        .is_none_or(|recorded| recorded == gateway.to_string())
}

/// The broker's container of a live Deployment, by name.
pub(crate) fn live_container(live: &Value) -> Option<&Value> {
    let containers = live.pointer("/spec/template/spec/containers")?.as_array()?;
    containers
        .iter()
        .find(|container| container.get("name").and_then(Value::as_str) == Some(names::BROKER))
}

/// A list of strings of the broker's container, for example `command`.
pub(crate) fn live_tokens(live: &Value, member: &str) -> Option<Vec<String>> {
    let list = live_container(live)?.get(member)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn merge_command(blueprint: &Blueprint, live: Option<&Value>) -> MergedCommand {
    let tokens = live.and_then(|live| live_tokens(live, "command"));
    let recorded = live
        .and_then(|live| live.pointer("/metadata/annotations"))
        .and_then(|annotations| annotations.get(names::OWNED_FLAGS_ANNOTATION))
        .and_then(Value::as_str);
    merge(
        command::PROGRAM,
        &command::flags(blueprint),
        tokens.as_deref(),
        recorded,
    )
}

fn container(blueprint: &Blueprint, command: &[String]) -> Value {
    json!({
        "name": names::BROKER,
        "image": blueprint.broker_image,
        "command": command,
        "env": env::variables(blueprint),
        "ports": [
            port("http", names::BROKER_HTTP_PORT),
            port("grpc", names::ROUTER_GRPC_PORT),
            port("metrics", names::BROKER_METRICS_PORT),
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http", "scheme": "HTTP"},
            "initialDelaySeconds": 5,
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": CONFIG_VOLUME, "mountPath": command::CONFIG_MOUNT, "readOnly": true},
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT, "readOnly": true},
        ],
    })
}

fn port(name: &str, number: i32) -> Value {
    json!({"name": name, "containerPort": number, "protocol": "TCP"})
}

fn volumes() -> Value {
    let namespace =
        json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!([
        {"name": CONFIG_VOLUME, "secret": {"secretName": names::CONFIG_SECRET, "defaultMode": FILE_MODE}},
        {"name": TOKEN_VOLUME, "projected": {"defaultMode": FILE_MODE, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]}},
    ])
}
