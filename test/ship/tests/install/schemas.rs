//! What OLM's own CRDs say about our objects, on the real API server. Skipped, loudly, where those CRDs are not at hand.

use std::{env, path::PathBuf};

use anyhow::Context;
use mcp_gateway_e2e::{apply, kubectl, kubectl_with};
use mcp_gateway_ship::helm::root;
use serde_json::json;

use crate::{
    CLUSTER,
    bundle::left_behind,
    cluster::{note, prepare},
    olm::{Bundle, NAMESPACE, condition, condition_crd},
};

/// The operator's, and where the guide has the catalog: on OpenShift, and elsewhere.
const NAMESPACES: [&str; 3] = [NAMESPACE, "openshift-marketplace", "olm"];

#[tokio::test]
async fn olm_s_own_schemas_accept_csv_catalog_group_and_subscription() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    let Some(crds) = olms_crds() else {
        note("SKIPPED: OLM's CRDs are neither in ../shared/olm/crds nor where MCPGW_OLM_CRDS says");
        return Ok(());
    };
    prepare()?;
    kubectl(&format!("apply --server-side -f {}", crds.display()))?;
    for namespace in NAMESPACES {
        apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string(),
        )?;
    }
    kubectl("wait --for=condition=Established crd --all --timeout=60s")?;
    for mut bundle in Bundle::released()?.into_iter().chain([Bundle::candidate()?]) {
        bundle.csv["metadata"]["namespace"] = json!(NAMESPACE);
        let strictly = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ];
        kubectl_with(&strictly, &bundle.csv.to_string()).with_context(|| bundle.name().to_owned())?;
    }
    for folder in ["config/olm", "config/olm-upstream"] {
        kubectl(&format!(
            "apply --server-side --dry-run=server --validate=strict -k {}",
            root().join(folder).display()
        ))?;
    }
    conditions_are_written_as_olm_wants_them()?;
    for namespace in NAMESPACES {
        kubectl(&format!("delete namespace {namespace} --timeout=60s"))?;
    }
    Ok(())
}

/// OLM's schema takes what the operator writes into its OperatorCondition.
fn conditions_are_written_as_olm_wants_them() -> anyhow::Result<()> {
    kubectl_with(
        &[
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ],
        &condition("mcp-gateway.v0.0.1", &[left_behind()]).to_string(),
    )
    .map(drop)
}

/// OperatorConditions in OLM's own schema when it is at hand, else in ours; they stay, as do OLM's other CRDs.
pub(crate) fn operator_conditions() -> anyhow::Result<()> {
    if let Some(folder) = olms_crds() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().contains("operatorconditions") {
                return kubectl(&format!("apply --server-side -f {}", path.display())).map(drop);
            }
        }
    }
    kubectl_with(
        &["apply", "--server-side", "-f", "-"],
        &condition_crd().to_string(),
    )
    .map(drop)
}

/// Where OLM's CRDs are, when they are at hand: `MCPGW_OLM_CRDS`, or `shared/olm/crds` beside a folder above the repository.
fn olms_crds() -> Option<PathBuf> {
    if let Some(named) = env::var_os("MCPGW_OLM_CRDS") {
        return Some(named.into());
    }
    let root = root().canonicalize().ok()?;
    root.ancestors()
        .skip(1)
        .map(|above| above.join("shared/olm/crds"))
        .find(|folder| folder.is_dir())
}
