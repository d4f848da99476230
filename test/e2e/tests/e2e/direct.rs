//! `dataPath: Direct`: the gateway carries the calls itself (design.md 5). No EnvoyFilter, the same tools, calls, sessions
//! and refusals.

use std::time::Duration;

use anyhow::ensure;
use mcp_gateway_e2e::{Answer, Cluster, Load, McpClient, PUBLIC_PORT, Site, apply, get, kubectl};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

const SWITCH: Duration = Duration::from_secs(120);
/// Calls of the load before, between and after the switches.
const SOME_CALLS: usize = 20;

fn filters(site: &str) -> anyhow::Result<usize> {
    let filters = get(&format!("envoyfilter -n {site}-gw"))?;
    Ok(filters["items"].as_array().map_or(0, Vec::len))
}

/// A site with one server, `one_`, that answers on the given data path.
async fn site_with_one(name: &str, more: &str) -> anyhow::Result<Site> {
    let site = Site::create(name)?;
    apply(&site.extension(name, "ext", "mcp", more))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    site.wait_ready(&format!("mcpsr/one -n {name}-servers"))?;
    let answered = async || call(&site).await.map_err(|error| format!("{error:#}"));
    eventually(Duration::from_secs(60), "the first call", answered).await?;
    Ok(site)
}

/// A sum in a session of its own.
async fn call(site: &Site) -> anyhow::Result<()> {
    let mut client = site.client().await?;
    client.initialize().await?;
    sum(&client).await
}

async fn sum(client: &McpClient) -> anyhow::Result<()> {
    let result = client.call("one_add", json!({"a": 19, "b": 23})).await?;
    ensure!(result["content"][0]["text"] == "42", "{result}");
    Ok(())
}

async fn send(client: &McpClient, method: &str, params: Value) -> anyhow::Result<Answer> {
    let message = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params});
    client.send(&message).await
}

fn message_of_ready(extension: &str) -> anyhow::Result<String> {
    let extension = get(extension)?;
    let conditions = extension["status"]["conditions"].as_array().cloned();
    let ready = conditions
        .unwrap_or_default()
        .into_iter()
        .find(|condition| condition["type"] == "Ready");
    Ok(ready.unwrap_or_default()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

#[tokio::test]
async fn lists_calls_and_sessions_need_no_envoy_filter() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with_one("straight", "dataPath: Direct").await?;
    assert_eq!(filters("straight")?, 0);
    let mut client = site.client().await?;
    let without = send(&client, "tools/list", json!({})).await?;
    assert_eq!(
        (without.status, without.message["error"]["code"].as_i64()),
        (400, Some(-32600)),
        "{without:?}"
    );
    client.initialize().await?;
    let tools = client.server_tools().await?;
    assert!(tools.contains(&"one_add".to_owned()), "{tools:?}");
    sum(&client).await?;
    let unknown = send(&client, "tools/call", json!({"name": "two_add", "arguments": {}})).await?;
    assert_eq!(
        unknown.message["error"]["message"], "Unknown tool: two_add",
        "{unknown:?}"
    );
    client.end().await?;
    let ended = send(&client, "tools/call", json!({"name": "one_add", "arguments": {}})).await?;
    assert_eq!(
        (ended.status, ended.message["error"]["code"].as_i64()),
        (404, Some(-32001)),
        "{ended:?}"
    );
    let message = message_of_ready("mcpge ext -n straight")?;
    assert!(
        message.contains("policies on the servers' own routes do not apply"),
        "{message}"
    );
    // What `kubectl port-forward svc/mcp-gateway` reaches is the gateway.
    let forwarded = format!("http://mcp-gateway.straight.svc.cluster.local:{PUBLIC_PORT}/mcp");
    let mut forwarded = McpClient::new(&forwarded, "localhost")?;
    forwarded.initialize().await?;
    sum(&forwarded).await
}

#[tokio::test]
async fn a_closed_gateway_refuses_on_the_direct_path_too() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with_one("denied", "dataPath: Direct").await?;
    kubectl(r#"patch mcpge ext -n denied --type=merge -p {"spec":{"authorization":"Required"}}"#)?;
    let mut client = site.client().await?;
    client.initialize().await?;
    let closed = eventually(Duration::from_secs(30), "no tools", async || {
        let tools = client.tools().await.map_err(|error| format!("{error:#}"))?;
        tools.is_empty().then_some(()).ok_or(format!("{tools:?}"))
    });
    closed.await?;
    let refused = send(
        &client,
        "tools/call",
        json!({"name": "one_add", "arguments": {"a": 1, "b": 2}}),
    )
    .await?;
    assert_eq!(
        refused.message["error"]["message"], "Unknown tool: one_add",
        "{refused:?}"
    );
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPAuthPolicy, metadata: {name: open, namespace: denied}, spec: {\
        targetRefs: [{group: mcp.kuadrant.io, kind: MCPGatewayExtension, name: ext}], defaultAction: Allow}}",
    )?;
    let open = async || sum(&client).await.map_err(|error| format!("{error:#}"));
    Ok(eventually(Duration::from_secs(60), "a call once a policy allows it", open).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_either_way_under_load_fails_no_call_of_a_new_session() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with_one("switched", "dataPath: ExtProc").await?;
    assert_eq!(filters("switched")?, 1);
    let load = Load::of_new_sessions(&site, "one_add").await?;
    load.further(SOME_CALLS).await?;
    for (path, wanted) in [("Direct", 0), ("ExtProc", 1)] {
        kubectl(&format!(
            r#"patch mcpge ext -n switched --type=merge -p {{"spec":{{"dataPath":"{path}"}}}}"#
        ))?;
        let settled = eventually(SWITCH, "the EnvoyFilter to go or come", async || {
            match filters("switched").map_err(|error| format!("{error:#}"))? {
                found if found == wanted => Ok(()),
                found => Err(format!("{found}")),
            }
        });
        settled.await?;
        kubectl("rollout status deployment mcp-gateway -n switched --timeout=90s")?;
        site.wait_ready("mcpge/ext -n switched")?;
        load.further(SOME_CALLS).await?;
    }
    load.stop().await.map(drop)
}

#[tokio::test]
#[ignore = "needs a control plane without Istio's kinds: make e2e-direct"]
async fn without_istios_kinds_the_direct_path_serves_and_the_other_says_why_not() -> anyhow::Result<()> {
    let kinds = kubectl("get crd -o name")?;
    ensure!(
        !kinds.contains("istio.io"),
        "Istio's kinds are here: run this by make e2e-direct"
    );
    let _cluster = Cluster::ready().await?;
    let site = site_with_one("bare", "dataPath: Direct").await?;
    call(&site).await?;
    kubectl(r#"patch mcpge ext -n bare --type=merge -p {"spec":{"dataPath":"ExtProc"}}"#)?;
    let message = site
        .wait_not_ready("mcpge/ext -n bare", "EnvoyFilterUnavailable")
        .await?;
    assert!(message.contains("EnvoyFilter"), "{message}");
    kubectl(r#"patch mcpge ext -n bare --type=merge -p {"spec":{"dataPath":"Direct"}}"#)?;
    site.wait_ready("mcpge/ext -n bare")?;
    let answered = async || call(&site).await.map_err(|error| format!("{error:#}"));
    Ok(eventually(Duration::from_secs(60), "a call on the way back", answered).await?)
}
