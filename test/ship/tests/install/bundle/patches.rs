//! What users change on a gateway's Deployment, and what an upgrade leaves of it: everything, beside flags that were ours.

use std::time::Duration;

use mcp_gateway_e2e::{Site, get, kubectl, kubectl_with, main_job};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

use crate::olm::NAMESPACE;

const SOON: Duration = Duration::from_secs(60);
/// A flag that an older version set and this one does not, and one that this version sets and an older one did not.
const RETIRED: &str = "--max-request-body-size";
const NEWLY_OWNED: &str = "--mcp-check-interval";

/// What users change on a gateway's Deployment: replicas, a label, and the CA of the install guide (volume, mount, flag).
pub(super) fn users_patches(site: &Site) -> anyhow::Result<()> {
    let mut patch = main_job::install_guides_patch(site)?;
    patch.extend([
        json!({"op": "add", "path": "/metadata/labels/users", "value": "own"}),
        json!({"op": "replace", "path": "/spec/replicas", "value": 2}),
    ]);
    kubectl(&format!(
        "patch deployment mcp-gateway -n olm --type=json -p {}",
        Value::from(patch)
    ))?;
    rolled()?;
    site.wait_ready("mcpsr/weather -n olm-servers")
}

pub(super) fn rolled() -> anyhow::Result<()> {
    kubectl("rollout status deployment/mcp-gateway -n olm --timeout=120s").map(drop)
}

pub(super) fn deployment() -> anyhow::Result<Value> {
    get("deployment mcp-gateway -n olm")
}

fn flags(deployment: &Value) -> Vec<String> {
    let command = &deployment["spec"]["template"]["spec"]["containers"][0]["command"];
    command
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag.as_str().unwrap().to_owned())
        .collect()
}

pub(super) fn revision(deployment: &Value) -> u64 {
    let annotation = &deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    annotation.as_str().unwrap().parse().unwrap()
}

/// The Deployment as a release would have left it that set a flag which this tree does not set, and did not set one that this
/// tree sets, so that a user did. The operator does not run meanwhile: it would put its own record back.
pub(super) fn other_flags_than_the_release() -> anyhow::Result<()> {
    kubectl(&format!(
        "scale deployment mcp-gateway-controller -n {NAMESPACE} --replicas=0"
    ))?;
    kubectl(&format!(
        "wait --for=delete pod -l app.kubernetes.io/name=mcp-gateway-operator -n {NAMESPACE} --timeout=60s"
    ))?;
    let live = deployment()?;
    let annotation = "mcp.kuadrant.io/owned-flags";
    let recorded = live["metadata"]["annotations"][annotation].as_str().unwrap();
    let recorded = format!("{recorded},{RETIRED}").replace(&format!("{NEWLY_OWNED},"), "");
    let mut command = flags(&live);
    command.retain(|flag| !flag.starts_with(NEWLY_OWNED));
    command.extend([
        format!("{RETIRED}=5242880"),
        NEWLY_OWNED.to_owned(),
        "45".to_owned(),
    ]);
    let patch = json!([
        {"op": "replace", "path": "/spec/template/spec/containers/0/command", "value": command},
        {"op": "replace", "path": "/metadata/annotations/mcp.kuadrant.io~1owned-flags", "value": recorded},
    ]);
    kubectl_with(
        &[
            "patch",
            "deployment",
            "mcp-gateway",
            "-n",
            "olm",
            "--type=json",
            "-p",
            &patch.to_string(),
        ],
        "",
    )?;
    rolled()
}

/// All that the user changed is there, the flags are this version's, and the pods were replaced once.
pub(super) async fn patches_are_kept(before: u64) -> anyhow::Result<()> {
    let live = deployment()?;
    assert_eq!(live["spec"]["replicas"], 2);
    assert_eq!(live["metadata"]["labels"]["users"], "own");
    main_job::install_guides_patch_is_in(&live)?;
    let now = flags(&live);
    assert!(
        !now.iter().any(|flag| flag.starts_with(RETIRED)),
        "no longer owned: {now:?}"
    );
    let owned: Vec<&String> = now.iter().filter(|flag| flag.starts_with(NEWLY_OWNED)).collect();
    assert_eq!(owned, [&format!("{NEWLY_OWNED}=31")], "newly owned: {now:?}");
    assert!(!now.contains(&"45".to_owned()), "{now:?}");
    assert_eq!(revision(&live), before + 1, "one rollout for one upgrade");
    // From now on the retired flag is the user's.
    let add = json!([{"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": format!("{RETIRED}=6000000")}]);
    kubectl(&format!(
        "patch deployment mcp-gateway -n olm --type=json -p {add}"
    ))?;
    kubectl(r#"patch mcpge ext -n olm --type=merge -p {"spec":{"backendPingIntervalSeconds":32}}"#)?;
    flag("--mcp-check-interval=32", "the new operator").await?;
    assert!(flags(&deployment()?).contains(&format!("{RETIRED}=6000000")));
    rolled()
}

pub(super) async fn flag(wanted: &str, what: &str) -> anyhow::Result<()> {
    let there = async || {
        let flags = flags(&deployment().map_err(|error| format!("{error:#}"))?);
        if flags.iter().any(|flag| flag == wanted) {
            Ok(())
        } else {
            Err(format!("{flags:?}"))
        }
    };
    Ok(eventually(SOON, what, there).await?)
}
