//! Two teams on one Gateway (seed 000): listeners of their own on ports of their own, because the Gateway's owner said so.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, McpClient, Site, apply, get, kubectl, kubectl_with};
use serde_json::json;

/// A session on a port of the site's Gateway.
async fn session(site: &Site, port: u16, host: &str) -> anyhow::Result<McpClient> {
    let gateway = get(&format!("gateway gw -n {}-gw", site.name()))?;
    let address = gateway["status"]["addresses"][0]["value"]
        .as_str()
        .context("the Gateway has no address")?;
    let mut client = McpClient::new(&format!("http://{address}:{port}/mcp"), host)?;
    client.initialize().await?;
    Ok(client)
}

#[tokio::test]
async fn t8_two_teams_on_one_gateway_see_only_their_own_tools() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("shared")?;
    kubectl("create namespace shared-b")?;
    site.grant("shared-b")?;
    kubectl("annotate gateway gw -n shared-gw mcp.kuadrant.io/extension-scope=Listener")?;
    apply(&site.extension("shared", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n shared")?;
    apply(&site.extension("shared-b", "ext", "other", ""))?;
    site.wait_ready("mcpge/ext -n shared-b")?;
    for (server, prefix) in [("one", "one_"), ("two", "two_")] {
        site.server(server)?;
        site.register(server, prefix)?;
    }
    let moved = json!([
        {"op": "replace", "path": "/spec/parentRefs/0/sectionName", "value": "other"},
        {"op": "replace", "path": "/spec/hostnames/0", "value": "two.shared.other"},
    ])
    .to_string();
    kubectl_with(
        &[
            "patch",
            "httproute",
            "two",
            "-n",
            "shared-servers",
            "--type",
            "json",
            "-p",
            &moved,
        ],
        "",
    )?;
    site.wait_ready("mcpsr/one -n shared-servers")?;
    site.wait_ready("mcpsr/two -n shared-servers")?;
    let first = session(&site, 8080, "mcp.shared.example").await?;
    let second = session(&site, 9090, "mcp.shared.other").await?;
    for (client, own, other) in [(first, "one_", "two_"), (second, "two_", "one_")] {
        let tools = client.server_tools().await?;
        ensure!(
            !tools.is_empty() && tools.iter().all(|tool| tool.starts_with(own)),
            "{own}: {tools:?}"
        );
        let sum = client.call(&format!("{own}add"), json!({"a": 1, "b": 2})).await?;
        assert_eq!(sum["content"][0]["text"], "3", "{sum}");
        let refused = client.call(&format!("{other}add"), json!({"a": 1, "b": 2})).await;
        ensure!(refused.is_err(), "{own} called a tool of the other team");
    }
    Ok(())
}
