//! The ClusterServiceVersion (olm.md 1.3–1.6, 6.4).

use anyhow::Context;
use mcp_gateway_api::webhooks;
use mcp_gateway_images::contents::rfc3339;
use serde_json::{Value, json};

use super::descriptors;
use crate::{inputs::Inputs, kustomize::NAMESPACE, manager, rbac, release, webhook};

/// Product features as certification asks for them; "true" only where the linter or a test shows it.
const FEATURES: [(&str, &str); 7] = [
    // Every image by digest and in relatedImages, operands from RELATED_IMAGE_*: held by the linter.
    ("disconnected", "true"),
    ("fips-compliant", "false"),
    ("proxy-aware", "false"),
    ("tls-profiles", "false"),
    ("token-auth-aws", "false"),
    ("token-auth-azure", "false"),
    ("token-auth-gcp", "false"),
];

pub(crate) fn name(version: &semver::Version) -> String {
    format!("{}.v{version}", release::PACKAGE)
}

pub(super) fn manifest(inputs: &Inputs) -> anyhow::Result<Value> {
    let mut spec = about(inputs);
    let members = spec.as_object_mut().context("the spec is an object")?;
    members.insert(
        "install".to_owned(),
        json!({"strategy": "deployment", "spec": install(inputs)?}),
    );
    members.insert("webhookdefinitions".to_owned(), json!(webhook_definitions()?));
    members.insert(
        "customresourcedefinitions".to_owned(),
        json!({"owned": descriptors::owned()?}),
    );
    members.insert("relatedImages".to_owned(), related_images(inputs)?);
    if let Some(predecessor) = inputs.predecessor() {
        members.insert("replaces".to_owned(), json!(name(predecessor)));
    }
    Ok(json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {
            "name": name(&inputs.version),
            "namespace": "placeholder",
            "annotations": annotations(inputs)?,
            "labels": labels(inputs),
        },
        "spec": spec,
    }))
}

fn about(inputs: &Inputs) -> Value {
    let mode = |name: &str, supported: bool| json!({"type": name, "supported": supported});
    json!({
        "displayName": "MCP Gateway",
        "description": inputs.description,
        "version": inputs.version.to_string(),
        "minKubeVersion": release::MIN_KUBE_VERSION,
        "maturity": "alpha",
        "provider": {"name": release::VENDOR, "url": release::REPOSITORY},
        "maintainers": [{"name": release::MAINTAINER, "email": release::EMAIL}],
        "links": [
            {"name": "Source", "url": release::REPOSITORY},
            {"name": "API reference", "url": format!("{}/blob/main/docs/reference/api.md", release::REPOSITORY)},
        ],
        "keywords": ["mcp", "model context protocol", "gateway", "gateway api", "istio", "envoy", "ai"],
        "icon": [{"base64data": inputs.icon, "mediatype": "image/svg+xml"}],
        "installModes": [
            mode("OwnNamespace", true),
            mode("SingleNamespace", true),
            mode("MultiNamespace", false),
            mode("AllNamespaces", true),
        ],
    })
}

/// Every one of them is copied to the pod templates by OLM, so none may change from build to build (olm.md 0, fact 8).
fn annotations(inputs: &Inputs) -> anyhow::Result<Value> {
    let mut annotations = json!({
        "alm-examples": serde_json::to_string_pretty(&inputs.examples)?,
        // `make e2e-install` upgrades from the released bundle under load.
        "capabilities": "Seamless Upgrades",
        "categories": "AI/Machine Learning, Networking",
        "containerImage": inputs.image("operator")?,
        "createdAt": rfc3339(inputs.epoch),
        "description": "One MCP endpoint for many MCP servers on a Gateway API Gateway (Technology Preview)",
        "repository": release::REPOSITORY,
        "support": release::MAINTAINER,
        "operatorframework.io/suggested-namespace": NAMESPACE,
        "operatorframework.io/initialization-resource": serde_json::to_string(&first_extension())?,
    });
    let members = annotations.as_object_mut().context("annotations are an object")?;
    for (feature, shown) in FEATURES {
        members.insert(format!("features.operators.openshift.io/{feature}"), json!(shown));
    }
    if let Some(range) = skip_range(inputs) {
        members.insert("olm.skipRange".to_owned(), json!(range));
    }
    Ok(annotations)
}

/// From the first release to right before this one, so that one upgrade may jump.
pub(crate) fn skip_range(inputs: &Inputs) -> Option<String> {
    let first = inputs
        .released
        .keys()
        .find(|version| **version < inputs.version)?;
    Some(format!(">={first} <{}", inputs.version))
}

/// What OpenShift's console offers to create first.
fn first_extension() -> Value {
    json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1",
        "kind": "MCPGatewayExtension",
        "metadata": {"name": "mcp-gateway", "namespace": NAMESPACE},
        "spec": {"targetRef": {"name": "mcp-gateway", "namespace": "gateway-system", "sectionName": "mcp"}},
    })
}

fn labels(inputs: &Inputs) -> Value {
    let architectures = inputs.architectures.iter();
    let mut labels: serde_json::Map<String, Value> = architectures
        .map(|name| (format!("operatorframework.io/arch.{name}"), json!("supported")))
        .collect();
    labels.insert("operatorframework.io/os.linux".to_owned(), json!("supported"));
    labels.into()
}

fn install(inputs: &Inputs) -> anyhow::Result<Value> {
    let permissions = |rules: fn(&rbac::Grants) -> Vec<Value>| -> Vec<Value> {
        rbac::TABLE
            .iter()
            .map(|grants| json!({"serviceAccountName": grants.account, "rules": rules(grants)}))
            .collect()
    };
    Ok(json!({
        "deployments": [
            deployment(&operator(inputs)?),
            deployment(&webhook_deployment(inputs)?),
        ],
        "clusterPermissions": permissions(rbac::Grants::cluster_rules),
        "permissions": permissions(rbac::Grants::own_rules),
    }))
}

fn deployment(manifest: &Value) -> Value {
    let label = manifest.pointer("/metadata/labels");
    json!({"name": manifest.pointer("/metadata/name"), "label": label, "spec": manifest["spec"]})
}

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Certificates are OLM's business, images are named by digest.
fn operator(inputs: &Inputs) -> anyhow::Result<Value> {
    let mut deployment = manager::deployment();
    let container = deployment
        .pointer_mut(CONTAINER)
        .and_then(Value::as_object_mut)
        .context("a container")?;
    container.insert("image".to_owned(), json!(inputs.image("operator")?));
    container.insert(
        "args".to_owned(),
        json!(["--leader-elect=true", "--webhook-certs=external"]),
    );
    for entry in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if entry["name"] == manager::BROKER_IMAGE_ENV
            && let Some(members) = entry.as_object_mut()
        {
            members.insert("value".to_owned(), json!(inputs.image("broker")?));
        }
    }
    Ok(deployment)
}

/// OLM mounts its own Secret at the path of `--cert-dir`, so the volume of the other installs goes.
fn webhook_deployment(inputs: &Inputs) -> anyhow::Result<Value> {
    // OLM lets this ServiceAccount read this one Secret (olm.md 1.7).
    let mut deployment = webhook::deployment(&format!("{}-service-cert", webhooks::NAME));
    let pod = deployment
        .pointer_mut("/spec/template/spec")
        .and_then(Value::as_object_mut)
        .context("a pod")?;
    pod.remove("volumes");
    let container = deployment
        .pointer_mut(CONTAINER)
        .and_then(Value::as_object_mut)
        .context("a container")?;
    container.remove("volumeMounts");
    container.insert("image".to_owned(), json!(inputs.image("webhook")?));
    Ok(deployment)
}

fn related_images(inputs: &Inputs) -> anyhow::Result<Value> {
    let image = |name: &str| anyhow::Ok(json!({"name": name, "image": inputs.image(name)?}));
    Ok(json!([image("broker")?, image("operator")?, image("webhook")?]))
}

/// One definition for each webhook of the configurations that the other installs ship. OLM writes the Service, the
/// selector and the certificate authority itself.
fn webhook_definitions() -> anyhow::Result<Vec<Value>> {
    let client = webhooks::WebhookClient::service(NAMESPACE, None);
    let validating = serde_json::to_value(webhooks::validating(&client))?;
    let mutating = serde_json::to_value(webhooks::mutating(&client))?;
    let of = |configuration: &Value, kind: &str| -> Vec<Value> {
        configuration["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|webhook| definition(webhook, kind))
            .collect()
    };
    Ok([
        of(&validating, "ValidatingAdmissionWebhook"),
        of(&mutating, "MutatingAdmissionWebhook"),
    ]
    .concat())
}

fn definition(webhook: &Value, kind: &str) -> Value {
    let mut definition = json!({
        "type": kind,
        "generateName": webhook["name"],
        "deploymentName": webhooks::NAME,
        "containerPort": webhooks::SERVICE_PORT,
        "targetPort": webhooks::TARGET_PORT,
        "webhookPath": webhook.pointer("/clientConfig/service/path"),
    });
    let taken = [
        "admissionReviewVersions",
        "failurePolicy",
        "matchPolicy",
        "reinvocationPolicy",
        "rules",
        "sideEffects",
        "timeoutSeconds",
    ];
    if let Some(members) = definition.as_object_mut() {
        for name in taken {
            if let Some(value) = webhook.get(name) {
                members.insert(name.to_owned(), value.clone());
            }
        }
        // OLM knows no match conditions. What needs one to fail closed fails open here, and the operator's supplementary
        // configuration closes it (`mcp_gateway_api::webhooks::supplementary`).
        if webhook.get("matchConditions").is_some() {
            members.insert("failurePolicy".to_owned(), json!("Ignore"));
        }
    }
    definition
}
