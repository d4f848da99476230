//! Kustomizations that put the parts together (operator.md 13).

use serde_json::json;

use crate::tree::{Files, yaml};

/// Namespace of the operator in the kustomize installs.
pub(crate) const NAMESPACE: &str = "mcp-system";

/// A kustomization of `resources`.
pub(crate) fn kustomization(namespace: Option<&str>, resources: &[String]) -> anyhow::Result<String> {
    let mut document = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    if let (Some(namespace), Some(members)) = (namespace, document.as_object_mut()) {
        members.insert("namespace".to_owned(), json!(namespace));
    }
    yaml(&[document])
}

pub(crate) fn files() -> anyhow::Result<Files> {
    let parts = ["../crd", "../rbac", "../manager", "../webhook"].map(str::to_owned);
    let install = ["namespace.yaml", "../default"].map(str::to_owned);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Ok(Files::from([
        (
            "config/default/kustomization.yaml".into(),
            kustomization(Some(NAMESPACE), &parts)?,
        ),
        (
            "config/install/kustomization.yaml".into(),
            kustomization(None, &install)?,
        ),
        ("config/install/namespace.yaml".into(), yaml(&[namespace])?),
    ]))
}
