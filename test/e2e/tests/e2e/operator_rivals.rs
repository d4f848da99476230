//! Winning, losing and recovering on a real API server (operator.md 4.4, 14), and what is left behind: nothing.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::time::Duration;

use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl, next_second};
use mcp_gateway_kit::eventually;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Names of the EnvoyFilters of ours in a namespace.
fn filters(namespace: &str) -> anyhow::Result<Vec<String>> {
    let line = format!(
        "get envoyfilter -n {namespace} -l app.kubernetes.io/managed-by=mcp-gateway-controller -o name"
    );
    Ok(kubectl(&line)?
        .lines()
        .map(|line| line.rsplit('/').next().unwrap_or_default().to_owned())
        .collect())
}

/// Waits until exactly these EnvoyFilters are in a namespace.
pub(crate) async fn filters_are(namespace: &str, wanted: &[&str]) -> anyhow::Result<()> {
    eventually(SOON, "the EnvoyFilters", async || {
        let found = filters(namespace).map_err(|error| format!("{error:#}"))?;
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    Ok(())
}

/// Listeners of the site's Gateway that carry our condition.
fn programmed(site: &str) -> anyhow::Result<Vec<String>> {
    let gateway = get(&format!("gateway gw -n {site}-gw"))?;
    let listeners = gateway["status"]["listeners"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let ours = |listener: &Value| {
        let conditions = listener["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "MCPGatewayExtension")
    };
    Ok(listeners
        .iter()
        .filter(|l| ours(l))
        .map(|l| l["name"].as_str().unwrap_or_default().to_owned())
        .collect())
}

pub(crate) async fn programmed_is(site: &str, wanted: &[&str]) -> anyhow::Result<()> {
    eventually(SOON, "the listener conditions", async || {
        let found = programmed(site).map_err(|error| format!("{error:#}"))?;
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t3_t5_t8_in_scope_listener_ports_are_shared_and_without_it_the_younger_loses() -> anyhow::Result<()>
{
    let _cluster = Cluster::ready().await?;
    let site = Site::create("ports")?;
    kubectl("create namespace ports-b")?;
    site.grant("ports-b")?;
    kubectl("annotate gateway gw -n ports-gw mcp.kuadrant.io/extension-scope=Listener")?;
    apply(&site.extension("ports", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n ports")?;
    next_second().await?;
    let second = site.extension("ports-b", "ext", "other", "");
    eventually(SOON, "the second port to be granted", async || {
        apply(&second).map_err(|error| format!("{error:#}"))
    })
    .await?;
    site.wait_ready("mcpge/ext -n ports-b")?;
    programmed_is("ports", &["mcp", "other"]).await?;
    kubectl("annotate gateway gw -n ports-gw mcp.kuadrant.io/extension-scope-")?;
    let message = site
        .wait_not_ready("mcpge/ext -n ports-b", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict") && message.contains("already has MCPGatewayExtension ports/ext"),
        "{message}"
    );
    filters_are("ports-gw", &["mcp-ext-proc-ports-gateway"]).await?;
    programmed_is("ports", &["mcp"]).await?;
    assert!(
        get("httproute mcp-gateway-route -n ports-b").is_err(),
        "the loser's route"
    );
    assert!(
        get("deployment mcp-gateway -n ports-b").is_ok(),
        "inert children stay"
    );
    site.wait_ready("mcpge/ext -n ports")?;
    delete("mcpge ext -n ports")?;
    site.wait_ready("mcpge/ext -n ports-b")?;
    filters_are("ports-gw", &["mcp-ext-proc-ports-b-gateway"]).await?;
    programmed_is("ports", &["other"]).await
}

#[tokio::test]
async fn t4_a_lost_gateway_or_grant_tears_down_and_comes_back_by_itself() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("lost")?;
    apply(&site.extension("lost", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n lost")?;
    delete("referencegrant allow-lost -n lost-gw")?;
    site.wait_not_ready("mcpge/ext -n lost", "ReferenceGrantRequired")
        .await?;
    filters_are("lost-gw", &[]).await?;
    programmed_is("lost", &[]).await?;
    site.grant("lost")?;
    site.wait_ready("mcpge/ext -n lost")?;
    filters_are("lost-gw", &["mcp-ext-proc-lost-gateway"]).await?;
    let gateway = get("gateway gw -n lost-gw")?["spec"].to_string();
    delete("gateway gw -n lost-gw")?;
    let message = site
        .wait_not_ready("mcpge/ext -n lost", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("gateway target lost-gw/gw not found"),
        "{message}"
    );
    filters_are("lost-gw", &[]).await?;
    apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: gw, namespace: lost-gw}}, spec: {gateway}}}"
    ))?;
    site.wait_ready("mcpge/ext -n lost")
}

#[tokio::test]
async fn t7_retargeting_leaves_nothing_at_the_old_gateway() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let old = Site::create("retarget")?;
    let new = Site::create("target2")?;
    new.grant("retarget")?;
    apply(&old.extension("retarget", "ext", "mcp", ""))?;
    old.wait_ready("mcpge/ext -n retarget")?;
    apply(&new.extension("retarget", "ext", "mcp", ""))?;
    filters_are("target2-gw", &["mcp-ext-proc-retarget-gateway"]).await?;
    filters_are("retarget-gw", &[]).await?;
    programmed_is("retarget", &[]).await?;
    programmed_is("target2", &["mcp"]).await?;
    old.wait_ready("mcpge/ext -n retarget")?;
    assert_eq!(
        get("httproute mcp-gateway-route -n retarget")?["spec"]["hostnames"][0],
        "mcp.target2.example"
    );
    let another = old.extension("target2", "ext", "mcp", "");
    old.grant("target2")?;
    eventually(SOON, "the old Gateway to be free", async || {
        apply(&another).map_err(|error| format!("{error:#}"))
    })
    .await?;
    old.wait_ready("mcpge/ext -n target2")
}

#[tokio::test]
async fn t10_t54_own_namespace_is_the_default_and_deletion_needs_no_gateway() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("alone")?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {name: ext, namespace: alone-gw}, \
        spec: {targetRef: {name: gw, sectionName: mcp}}}",
    )?;
    site.wait_ready("mcpge/ext -n alone-gw")?;
    filters_are("alone-gw", &["mcp-ext-proc-alone-gw-gateway"]).await?;
    delete("gateway gw -n alone-gw")?;
    delete("mcpge ext -n alone-gw")?;
    filters_are("alone-gw", &[]).await?;
    eventually(SOON, "the children to be collected", async || {
        match get("deployment mcp-gateway -n alone-gw") {
            Ok(found) => Err(found["metadata"].to_string()),
            Err(_) => Ok(()),
        }
    })
    .await?;
    Ok(())
}
