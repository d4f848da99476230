//! `config/manager`: the operator's Deployment and ServiceAccount, and what both Deployments have in common.

use mcp_gateway_api::names;
use serde_json::{Value, json};

use crate::{
    kustomize::kustomization,
    tree::{Files, yaml},
};

/// Name of the operator's Deployment and ServiceAccount.
pub(crate) const NAME: &str = names::OPERATOR;
/// Value of `app.kubernetes.io/name` on its pods: never that of the broker, so that no selector of a child meets it.
pub(crate) const APP: &str = "mcp-gateway-operator";
/// Env variable with the image of the operands.
pub(crate) const BROKER_IMAGE_ENV: &str = "RELATED_IMAGE_ROUTER_BROKER";
/// Version of the images, that of this workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn files() -> anyhow::Result<Files> {
    let resources = ["deployment.yaml".to_owned(), "service_account.yaml".to_owned()];
    Ok(Files::from([
        ("config/manager/deployment.yaml".into(), yaml(&[deployment()])?),
        ("config/manager/service_account.yaml".into(), yaml(&[account()])?),
        (
            "config/manager/kustomization.yaml".into(),
            kustomization(None, &resources)?,
        ),
    ]))
}

/// The operator's Deployment as kustomize installs it; chart and bundle change single members of it.
pub(crate) fn deployment() -> Value {
    let env = json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        {"name": BROKER_IMAGE_ENV, "value": format!("{}:{VERSION}", names::BROKER_IMAGE)},
    ]);
    let container = json!({
        "name": "manager",
        "image": format!("{}:{VERSION}", names::OPERATOR_IMAGE),
        "args": ["--leader-elect=true", "--webhook-certs=managed"],
        "env": env,
        "ports": [
            {"name": "health", "containerPort": 8081, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 8082, "protocol": "TCP"},
        ],
    });
    deployment_of(NAME, APP, 1, container)
}

/// A Deployment of one hardened container with the probes and limits that both parts share.
pub(crate) fn deployment_of(name: &str, app: &str, replicas: u32, mut container: Value) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": 5});
    let shared = json!({
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    });
    if let (Value::Object(container), Value::Object(shared)) = (&mut container, shared) {
        container.extend(shared);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels(app)},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": app}},
            "template": {
                "metadata": {"labels": labels(app)},
                "spec": {
                    "serviceAccountName": name,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 30,
                    "containers": [container],
                },
            },
        },
    })
}

/// Labels of the parts that are installed, as opposed to the children that the operator makes.
pub(crate) fn labels(app: &str) -> Value {
    json!({"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "mcp-gateway"})
}

/// The operator's ServiceAccount.
pub(crate) fn account() -> Value {
    service_account(NAME, APP)
}

pub(crate) fn service_account(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": labels(app)}})
}

/// An env entry from the downward API.
pub(crate) fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}
