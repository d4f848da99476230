//! `charts/mcp-gateway`: the parts of the Helm chart that have a source in code (CRDs, RBAC table, Deployments, webhook
//! configurations). What is only about values (helpers, Gateway, extension, NOTES) is written by hand beside them.

mod template;

use std::path::PathBuf;

use mcp_gateway_api::{crds, webhooks};
use serde_json::{Value, json};

use crate::{
    manager, rbac,
    tree::{Files, yaml},
    webhook,
};
use template::{insert, render};

const CHART: &str = "charts/mcp-gateway";
/// The release's ClusterRole of the operator; it also owns the webhook configurations that the operator makes.
const CLUSTER_OPERATOR: &str = "TPL-FULLNAME-controller";
const CLUSTER_WEBHOOK: &str = "TPL-FULLNAME-webhook";

pub(crate) fn files() -> anyhow::Result<Files> {
    let mut files = Files::new();
    let chart = |path: &str| PathBuf::from(CHART).join(path);
    for crd in crds::all()? {
        files.insert(chart("crds").join(&crd.file_name), yaml(&[crd.manifest])?);
    }
    let controller = "{{- if .Values.controller.enabled }}";
    let webhook = "{{- if and .Values.controller.enabled .Values.webhook.enabled }}";
    let shipped = r#"{{- if and .Values.controller.enabled .Values.webhook.enabled (ne .Values.webhook.certs "managed") }}"#;
    let advisory =
        "{{- if and .Values.controller.enabled .Values.webhook.enabled .Values.webhook.advisory }}";
    files.insert(chart("Chart.yaml"), definition()?);
    files.insert(chart("templates/rbac.yaml"), render(controller, rbac_objects())?);
    files.insert(
        chart("templates/controller.yaml"),
        render(controller, operator_objects())?,
    );
    files.insert(
        chart("templates/webhook.yaml"),
        render(webhook, webhook_objects())?,
    );
    files.insert(
        chart("templates/webhook-configurations.yaml"),
        render(shipped, configurations()?)?,
    );
    files.insert(
        chart("templates/webhook-advisory.yaml"),
        render(advisory, advisory_configuration()?)?,
    );
    Ok(files)
}

fn definition() -> anyhow::Result<String> {
    yaml(&[json!({
        "apiVersion": "v2",
        "name": "mcp-gateway",
        "description": "One MCP endpoint for many MCP servers on a Gateway API Gateway (Technology Preview)",
        "type": "application",
        "version": manager::VERSION,
        "appVersion": manager::VERSION,
        "kubeVersion": format!(">={}-0", crate::release::MIN_KUBE_VERSION),
        "keywords": ["mcp", "gateway-api", "istio", "envoy", "ai"],
        "home": crate::release::REPOSITORY,
        "sources": [crate::release::REPOSITORY],
        "icon": format!("{}/raw/main/config/manifests/icon.svg", crate::release::REPOSITORY),
        "maintainers": [{"name": crate::release::MAINTAINER, "email": crate::release::EMAIL}],
    })])
}

fn rbac_objects() -> Vec<Value> {
    let [operator, webhook] = &rbac::TABLE;
    let mut objects = operator.objects(CLUSTER_OPERATOR, "TPL-NAMESPACE").to_vec();
    if let Some(rules) = objects.first_mut().and_then(|role| role["rules"].as_array_mut()) {
        // To read the uid of this very object, the owner of the webhook configurations that the operator makes.
        rules.push(
            json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "verbs": ["get"], "resourceNames": [CLUSTER_OPERATOR]}),
        );
    }
    objects.extend(webhook.objects(CLUSTER_WEBHOOK, "TPL-NAMESPACE"));
    objects.extend(rbac::helper_roles("TPL-FULLNAME"));
    objects
}

fn operator_objects() -> Vec<Value> {
    let mut deployment = manager::deployment();
    released(&mut deployment);
    insert(
        &mut deployment,
        "/spec",
        "replicas",
        json!("TPL-CONTROLLER-REPLICAS"),
    );
    let container = "/spec/template/spec/containers/0";
    insert(&mut deployment, container, "image", json!("TPL-CONTROLLER-IMAGE"));
    insert(
        &mut deployment,
        container,
        "args",
        json!(["--leader-elect=true", "--webhook-certs=TPL-OPERATOR-CERTS"]),
    );
    if let Some(env) = deployment
        .pointer_mut(&format!("{container}/env"))
        .and_then(Value::as_array_mut)
    {
        for entry in env
            .iter_mut()
            .filter(|entry| entry["name"] == manager::BROKER_IMAGE_ENV)
        {
            entry["value"] = json!("TPL-BROKER-IMAGE");
        }
        env.push(json!({"name": "WEBHOOK_CONFIGURATION_OWNER", "value": CLUSTER_OPERATOR}));
    }
    vec![manager::account(), operator_service(), deployment]
}

/// Only the chart has it: `helm test` asks the operator's health through it.
fn operator_service() -> Value {
    let port =
        |name: &str, port: i32| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": manager::NAME, "labels": manager::labels(manager::APP)},
        "spec": {
            "selector": {"app.kubernetes.io/name": manager::APP},
            "ports": [port("health", 8081), port("metrics", 8082)],
        },
    })
}

fn webhook_objects() -> Vec<Value> {
    let mut deployment = webhook::deployment(mcp_gateway_api::webhooks::CERT_SECRET);
    released(&mut deployment);
    insert(
        &mut deployment,
        "/spec",
        "replicas",
        json!("TPL-WEBHOOK-REPLICAS"),
    );
    insert(
        &mut deployment,
        "/spec/template/spec/containers/0",
        "image",
        json!("TPL-WEBHOOK-IMAGE"),
    );
    insert(
        &mut deployment,
        "/spec/template/spec/containers/0",
        "imagePullPolicy",
        json!("TPL-WEBHOOK-PULL-POLICY"),
    );
    insert(
        &mut deployment,
        "/spec/template/spec/containers/0/args",
        "-",
        json!("TPL-ADVISORY"),
    );
    vec![
        webhook::account(),
        webhook::service(),
        deployment,
        webhook::disruption_budget(),
    ]
}

/// What values may change on both Deployments.
fn released(deployment: &mut Value) {
    let container = "/spec/template/spec/containers/0";
    insert(deployment, container, "imagePullPolicy", json!("TPL-PULL-POLICY"));
    insert(deployment, container, "tpl-resources", Value::Null);
    if let Some(container) = deployment.pointer_mut(container).and_then(Value::as_object_mut) {
        container.remove("resources");
    }
    for block in [
        "tpl-node-selector",
        "tpl-tolerations",
        "tpl-affinity",
        "tpl-pull-secrets",
    ] {
        insert(deployment, "/spec/template/spec", block, Value::Null);
    }
    insert(
        deployment,
        "/spec/template/metadata",
        "tpl-pod-annotations",
        Value::Null,
    );
    insert(
        deployment,
        "/spec/template/metadata/labels",
        "tpl-pod-labels",
        Value::Null,
    );
}

/// The configurations for `webhook.certs` certManager and external; with managed the operator makes them.
fn configurations() -> anyhow::Result<Vec<Value>> {
    let client = webhooks::WebhookClient::service("TPL-NAMESPACE", None);
    let mut objects = vec![
        serde_json::to_value(webhooks::validating(&client))?,
        serde_json::to_value(webhooks::mutating(&client))?,
    ];
    trusted(&mut objects);
    Ok(objects)
}

/// With managed certificates the operator adds the certificate authority to what the release brings.
fn advisory_configuration() -> anyhow::Result<Vec<Value>> {
    let client = webhooks::WebhookClient::service("TPL-NAMESPACE", None);
    let mut objects = vec![serde_json::to_value(webhooks::advisory(&client))?];
    trusted(&mut objects);
    Ok(objects)
}

/// Whom the configurations trust: cert-manager's authority, or that of the values.
fn trusted(objects: &mut [Value]) {
    for object in objects {
        insert(object, "/metadata", "tpl-inject-ca", Value::Null);
        for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
            insert(webhook, "/clientConfig", "tpl-ca-bundle", Value::Null);
        }
    }
}
