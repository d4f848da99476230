//! `config/webhook`: the webhook's Deployment, Service, PodDisruptionBudget and the two configurations; and the advisory
//! webhook as a component. Their CA is injected by the operator (`--webhook-certs=managed`).

use mcp_gateway_api::{names, webhooks};
use serde_json::{Value, json};

use crate::{
    kustomize::{NAMESPACE, kustomization},
    manager::{VERSION, deployment_of, field, labels, service_account},
    tree::{Files, yaml},
};

const APP: &str = webhooks::NAME;
const CERT_FOLDER: &str = "/tmp/k8s-webhook-server/serving-certs";

pub(crate) fn files() -> anyhow::Result<Files> {
    let names = [
        "configurations",
        "deployment",
        "pod_disruption_budget",
        "service",
        "service_account",
    ];
    let resources = names.map(|name| format!("{name}.yaml"));
    Ok(Files::from([
        (
            "config/webhook/configurations.yaml".into(),
            yaml(&configurations()?)?,
        ),
        (
            "config/webhook/deployment.yaml".into(),
            yaml(&[deployment(webhooks::CERT_SECRET)])?,
        ),
        (
            "config/webhook/pod_disruption_budget.yaml".into(),
            yaml(&[disruption_budget()])?,
        ),
        ("config/webhook/service.yaml".into(), yaml(&[service()])?),
        ("config/webhook/service_account.yaml".into(), yaml(&[account()])?),
        (
            "config/webhook/kustomization.yaml".into(),
            kustomization(None, &resources)?,
        ),
        (
            "config/components/advisory/configuration.yaml".into(),
            yaml(&[advisory()?])?,
        ),
        (
            "config/components/advisory/kustomization.yaml".into(),
            yaml(&[advisory_component()])?,
        ),
    ]))
}

fn configurations() -> Result<[Value; 2], serde_json::Error> {
    let client = webhooks::WebhookClient::service(NAMESPACE, None);
    Ok([
        serde_json::to_value(webhooks::validating(&client))?,
        serde_json::to_value(webhooks::mutating(&client))?,
    ])
}

fn advisory() -> Result<Value, serde_json::Error> {
    let client = webhooks::WebhookClient::service(NAMESPACE, None);
    serde_json::to_value(webhooks::advisory(&client))
}

/// Adds the advisory webhook to `config/install` or `config/default`.
fn advisory_component() -> Value {
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["configuration.yaml"],
        "patches": [{
            "target": {"kind": "Deployment", "name": webhooks::NAME},
            "patch": "- op: add\n  path: /spec/template/spec/containers/0/args/-\n  value: --advisory\n",
        }],
    })
}

/// The ServiceAccount of the webhook.
pub(crate) fn account() -> Value {
    service_account(webhooks::NAME, APP)
}

/// The webhook's Deployment. It reads its serving pair from a folder and, because a kubelet brings files late, from the
/// Secret `cert_secret` too.
pub(crate) fn deployment(cert_secret: &str) -> Value {
    let container = json!({
        "name": "webhook",
        "image": format!("{}:{VERSION}", names::WEBHOOK_IMAGE),
        "args": [
            format!("--bind-addr=0.0.0.0:{}", webhooks::TARGET_PORT),
            format!("--cert-dir={CERT_FOLDER}"),
            format!("--cert-secret={cert_secret}"),
        ],
        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
        "ports": [
            {"name": "webhook", "containerPort": webhooks::TARGET_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": 8081, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 8082, "protocol": "TCP"},
        ],
        "volumeMounts": [{"name": "webhook-cert", "mountPath": CERT_FOLDER, "readOnly": true}],
    });
    let mut deployment = deployment_of(webhooks::NAME, APP, 2, container);
    if let Some(pod) = deployment
        .pointer_mut("/spec/template/spec")
        .and_then(Value::as_object_mut)
    {
        let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": APP}}}]);
        pod.insert("topologySpreadConstraints".to_owned(), spread);
        // The operator makes the Secret; until then the pods wait unready instead of hanging in ContainerCreating.
        let volume = json!([{"name": "webhook-cert", "secret": {"secretName": webhooks::CERT_SECRET, "optional": true}}]);
        pod.insert("volumes".to_owned(), volume);
    }
    deployment
}

pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": webhooks::NAME, "labels": labels(APP)},
        "spec": {
            "selector": {"app.kubernetes.io/name": APP},
            "ports": [{"name": "https", "port": webhooks::SERVICE_PORT, "targetPort": webhooks::TARGET_PORT, "protocol": "TCP"}],
        },
    })
}

pub(crate) fn disruption_budget() -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": webhooks::NAME, "labels": labels(APP)},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": APP}}},
    })
}
