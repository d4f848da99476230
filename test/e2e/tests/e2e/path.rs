//! The main job: from custom resources to a tool call through Envoy, and what a user does around it.

use mcp_gateway_e2e::{Cluster, Site, apply, get, kubectl, main_job};
use serde_json::json;

use crate::operator_children::events;

#[tokio::test]
async fn tools_of_two_servers_are_listed_and_called_through_envoy() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    main_job::two_servers_are_served(&Site::create("path")?).await
}

#[tokio::test]
async fn the_curl_of_the_install_guide_initializes() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("curl")?;
    apply(&site.extension("curl", "ext", "mcp", "httpRouteManagement: Enabled"))?;
    site.wait_ready("mcpgatewayextension/ext -n curl")?;
    let routes = get("httproute mcp-gateway-route -n curl")?;
    assert_eq!(routes["spec"]["hostnames"], json!(["mcp.curl.example"]));
    let filters =
        kubectl("get envoyfilter -n curl-gw -l app.kubernetes.io/managed-by=mcp-gateway-controller -o name")?;
    assert_eq!(
        filters.trim(),
        "envoyfilter.networking.istio.io/mcp-ext-proc-curl-gateway"
    );
    let answer = site
        .client()
        .await?
        .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}))
        .await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.message["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(
        answer.message["result"]["serverInfo"]["name"],
        "Kuadrant MCP Gateway"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_extension_is_refused_before_it_is_stored() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("second")?;
    apply(&site.extension("second", "ext", "mcp", ""))?;
    main_job::second_extensions_are_refused(&site)
}

#[tokio::test]
async fn t21_the_install_guides_patch_survives_a_spec_change() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("patch")?;
    apply(&site.extension("patch", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n patch")?;
    main_job::the_install_guides_patch_stays(&site).await?;
    assert_eq!(
        events("DriftReverted", "patch")?,
        0,
        "the user changed nothing of ours"
    );
    assert!(events("ConfigUpdated", "patch")? > 0);
    Ok(())
}

#[tokio::test]
async fn bad_input_gets_a_status_that_names_the_field_and_disturbs_nobody() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    main_job::bad_input_is_named(&Site::create("bad")?).await
}
