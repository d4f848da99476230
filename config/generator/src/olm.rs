//! `config/olm`: the objects of the OLM install as in the guide (operator.md 13); only `source` differs from it.

use serde_json::{Value, json};

use crate::{
    kustomize::{NAMESPACE, kustomization},
    release,
    tree::{Files, yaml},
};

const CATALOG: &str = "mcp-gateway-catalog";
const OPENSHIFT: &str = "openshift-marketplace";
/// Where OLM keeps catalogs outside OpenShift.
const UPSTREAM: &str = "olm";

pub(crate) fn files() -> anyhow::Result<Files> {
    let resources = [
        "catalog_source.yaml",
        "namespace.yaml",
        "operator_group.yaml",
        "subscription.yaml",
    ]
    .map(str::to_owned);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let patches = json!([
        patch("CatalogSource", CATALOG, "/metadata/namespace"),
        patch("Subscription", release::PACKAGE, "/spec/sourceNamespace"),
    ]);
    let upstream = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../olm"],
        "patches": patches,
    });
    Ok(Files::from([
        (
            "config/olm/catalog_source.yaml".into(),
            yaml(&[catalog_source()])?,
        ),
        ("config/olm/namespace.yaml".into(), yaml(&[namespace])?),
        (
            "config/olm/operator_group.yaml".into(),
            yaml(&[operator_group()])?,
        ),
        ("config/olm/subscription.yaml".into(), yaml(&[subscription()])?),
        (
            "config/olm/kustomization.yaml".into(),
            kustomization(None, &resources)?,
        ),
        (
            "config/olm-upstream/kustomization.yaml".into(),
            yaml(&[upstream])?,
        ),
    ]))
}

fn patch(kind: &str, name: &str, path: &str) -> Value {
    json!({
        "target": {"kind": kind, "name": name},
        "patch": format!("- op: replace\n  path: {path}\n  value: {UPSTREAM}\n"),
    })
}

/// The catalog image has no server in it: OLM takes the files out and serves them with its own `opm`.
fn catalog_source() -> Value {
    json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "CatalogSource",
        "metadata": {"name": CATALOG, "namespace": OPENSHIFT},
        "spec": {
            "sourceType": "grpc",
            "image": format!("{}/catalog:{}", mcp_gateway_images::REGISTRY, crate::manager::VERSION),
            "displayName": "MCP Gateway",
            "publisher": release::VENDOR,
            "grpcPodConfig": {
                "securityContextConfig": "restricted",
                "extractContent": {"catalogDir": "/configs", "cacheDir": "/tmp/cache"},
            },
        },
    })
}

fn operator_group() -> Value {
    json!({
        "apiVersion": "operators.coreos.com/v1",
        "kind": "OperatorGroup",
        "metadata": {"name": release::PACKAGE, "namespace": NAMESPACE},
        "spec": {"targetNamespaces": [NAMESPACE]},
    })
}

fn subscription() -> Value {
    json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "Subscription",
        "metadata": {"name": release::PACKAGE, "namespace": NAMESPACE},
        "spec": {
            "source": CATALOG,
            "sourceNamespace": OPENSHIFT,
            "name": release::PACKAGE,
            "channel": release::CHANNEL,
        },
    })
}
