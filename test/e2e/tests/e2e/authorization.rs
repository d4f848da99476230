//! `docs/guides/authorize-tools.md`, with its own manifests and token, through a real Envoy.

use std::time::{Duration, Instant};

use anyhow::Context;
use mcp_gateway_e2e::{Cluster, McpClient, Site, apply, get, kubectl};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

use crate::operator_children::told;

const GUIDE: &str = include_str!("../../../../docs/guides/authorize-tools.md");

/// The blocks of the guide in one language, with the names of the test's site.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let found = GUIDE
        .split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next());
    found
        .map(|block| {
            block
                .replace("gateway-system", "authz-gw")
                .replace("mcp-servers", "authz-servers")
                .replace("name: mcp-gateway}", "name: gw}")
                .replace(
                    "mcpgatewayextension mcp-gateway -n team-a",
                    "mcpgatewayextension ext -n authz",
                )
        })
        .collect()
}

fn condition(kind: &str) -> Result<Value, String> {
    condition_of("mcp-jwt-auth -n authz-gw", kind)
}

fn condition_of(policy: &str, kind: &str) -> Result<Value, String> {
    let policy = get(&format!("mcpauthpolicy {policy}")).map_err(|error| format!("{error:#}"))?;
    let conditions = policy["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.ok_or_else(|| policy["status"].to_string())
}

async fn until_tools(client: &McpClient, wanted: &[&str]) -> anyhow::Result<()> {
    let listed = async || {
        let tools = client.tools().await.map_err(|error| format!("{error:#}"))?;
        if tools == wanted {
            Ok(())
        } else {
            Err(format!("{tools:?}"))
        }
    };
    Ok(eventually(Duration::from_secs(30), &format!("exactly {wanted:?}"), listed).await?)
}

async fn is_unknown(client: &McpClient, tool: &str) -> anyhow::Result<()> {
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": tool, "arguments": {"a": 1, "b": 2}}});
    let answer = client.send(&call).await?;
    let error = &answer.message["error"];
    anyhow::ensure!(
        answer.status == 200
            && error["code"] == -32602
            && error["message"] == format!("Unknown tool: {tool}"),
        "{answer:?}"
    );
    Ok(())
}

async fn until_refused(client: &McpClient, arguments: Value) -> anyhow::Result<()> {
    let call = json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "tool_add", "arguments": arguments}});
    let refused = async || {
        let answer = client.send(&call).await.map_err(|error| format!("{error:#}"))?;
        let error = &answer.message["error"];
        if error["code"] == -32602 && error["message"] == "Denied by policy" {
            Ok(())
        } else {
            Err(answer.message.to_string())
        }
    };
    Ok(eventually(Duration::from_secs(30), "the call to be refused", refused).await?)
}

/// Two servers behind one extension.
fn site() -> anyhow::Result<Site> {
    let site = Site::create("authz")?;
    apply(&site.extension("authz", "ext", "mcp", "httpRouteManagement: Enabled"))?;
    for (server, prefix) in [("mcp-tool", "tool_"), ("other", "other_")] {
        site.server(server)?;
        site.register(server, prefix)?;
    }
    site.wait_ready("mcpge/ext -n authz")?;
    site.wait_ready("mcpsr/mcp-tool -n authz-servers")?;
    site.wait_ready("mcpsr/other -n authz-servers")?;
    Ok(site)
}

/// A key document that nobody may use closes what the policy concerns, and the status says which.
async fn spoil_the_keys() -> anyhow::Result<()> {
    kubectl("patch configmap issuer-keys -n authz-gw --type=merge -p {\"data\":{\"jwks.json\":\"{}\"}}")?;
    let refused = eventually(Duration::from_secs(30), "the policy to be refused", async || {
        let accepted = condition("Accepted")?;
        if accepted["status"] == "False" {
            Ok(accepted)
        } else {
            Err(accepted.to_string())
        }
    });
    let refused = refused.await?;
    assert!(
        refused["reason"] == "Invalid"
            && refused["message"]
                .as_str()
                .unwrap_or_default()
                .contains("configmap authz-gw/issuer-keys"),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn t68_the_guide_to_policies_decides_lists_and_calls_alike() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site()?;
    let token = blocks("")
        .into_iter()
        .find(|block| block.starts_with("eyJ"))
        .context("the guide's token")?;

    for manifest in blocks("yaml") {
        apply(&manifest)?;
    }
    kubectl("wait --for=condition=Enforced --timeout=60s mcpauthpolicy/mcp-jwt-auth -n authz-gw")?;
    let resolved = eventually(Duration::from_secs(30), "the names to be looked up", async || {
        condition("ResourcesResolved")
    });
    assert_eq!(resolved.await?["reason"], "AllResolved");

    let anonymous = site.client().await?;
    let refused = anonymous
        .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}))
        .await?;
    assert_eq!(
        (refused.status, refused.message["error"]["code"].as_i64()),
        (401, Some(-32001))
    );
    let challenge = refused.challenge.unwrap_or_default();
    assert!(
        challenge.contains("resource_metadata=")
            && challenge.contains("http://mcp.authz.example:8080/.well-known/oauth-protected-resource/mcp"),
        "{challenge}"
    );

    let mut client = site.client().await?.with_bearer(token.trim());
    client.initialize().await?;
    until_tools(&client, &["tool_add"]).await?;
    let sum = client.call("tool_add", json!({"a": 19, "b": 23})).await?;
    assert_eq!(sum["content"][0]["text"], "42");
    is_unknown(&client, "other_add").await?;

    // The claim no longer matches: same session, same token.
    let rule = |value: &str| {
        format!(
            "patch mcpauthpolicy mcp-jwt-auth -n authz-gw --type=json -p [{{\"op\":\"replace\",\"path\":\"/spec/rules/0/matches/0/jwt/value\",\"value\":\"{value}\"}}]"
        )
    };
    for (value, tools) in [("somebody-else", &[][..]), ("me", &["tool_add"])] {
        let edited = Instant::now();
        kubectl(&rule(value))?;
        until_tools(&client, tools).await?;
        eprintln!(
            "Policy edited, in force after {} ms",
            edited.elapsed().as_millis()
        );
        if tools.is_empty() {
            is_unknown(&client, "tool_add").await?;
        }
    }

    // A condition on the arguments: the tool stays in the list, and one call passes and another does not.
    kubectl(
        "patch mcpauthpolicy mcp-jwt-auth -n authz-gw --type=json -p [{\"op\":\"add\",\"path\":\"/spec/rules/0/condition\",\"value\":\"arguments.a<20\"}]",
    )?;
    until_refused(&client, json!({"a": 20, "b": 22})).await?;
    until_tools(&client, &["tool_add"]).await?;
    let sum = client.call("tool_add", json!({"a": 19, "b": 23})).await?;
    assert_eq!(sum["content"][0]["text"], "42");

    spoil_the_keys().await?;
    until_tools(&client, &[]).await
}

/// A policy of the mesh that keys on our headers counts beside ours: what either denies is denied.
async fn denied_by_the_mesh(client: &McpClient) -> anyhow::Result<()> {
    apply(
        "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: no-sums, namespace: shut-gw}, spec: {\
        targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}], action: DENY, \
        rules: [{when: [{key: 'request.headers[x-mcp-toolname]', values: [add]}]}]}}",
    )?;
    let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "one_add", "arguments": {"a": 1, "b": 2}}});
    let denied = async || {
        let answer = client.send(&call).await.map_err(|error| format!("{error:#}"))?;
        if answer.status == 403 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    };
    eventually(Duration::from_secs(30), "the mesh to deny the call", denied).await?;
    let other = client.call("one_forecast", json!({"city": "Oslo"})).await?;
    anyhow::ensure!(other["isError"] != true, "{other}");
    Ok(())
}

#[tokio::test]
async fn a_closed_gateway_stays_closed_when_its_policy_is_deleted() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("shut")?;
    apply(&site.extension(
        "shut",
        "ext",
        "mcp",
        "httpRouteManagement: Enabled, authorization: Required",
    ))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpge/ext -n shut")?;
    site.wait_ready("mcpsr/one -n shut-servers")?;
    let mut client = site.client().await?;
    client.initialize().await?;
    until_tools(&client, &[]).await?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPAuthPolicy, metadata: {name: open, namespace: shut}, spec: {\
        targetRefs: [{group: mcp.kuadrant.io, kind: MCPGatewayExtension, name: ext}], defaultAction: Allow}}",
    )?;
    kubectl("wait --for=condition=Enforced --timeout=60s mcpauthpolicy/open -n shut")?;
    let open = async || {
        let tools = client.tools().await.map_err(|error| format!("{error:#}"))?;
        if tools.contains(&"one_add".to_owned()) {
            Ok(())
        } else {
            Err(format!("{tools:?}"))
        }
    };
    eventually(Duration::from_secs(30), "the tools of an open gateway", open).await?;
    denied_by_the_mesh(&client).await?;
    kubectl("delete mcpauthpolicy open -n shut")?;
    until_tools(&client, &[]).await?;
    told("LastPolicyRemoved", "shut").await
}

#[tokio::test]
async fn t69_a_rule_that_names_a_tool_nobody_serves_says_so_until_it_appears() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("absent")?;
    apply(&site.extension("absent", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n absent")?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPAuthPolicy, metadata: {name: late, namespace: absent}, spec: {\
        targetRefs: [{group: mcp.kuadrant.io, kind: MCPGatewayExtension, name: ext}], rules: [\
        {name: sums, resource: {kind: tool, name: 'absent-servers/late:add'}}]}}",
    )?;
    let resolved = async |status: &str| {
        let what = format!("ResourcesResolved={status}");
        let found = eventually(Duration::from_secs(60), &what, async || {
            let found = condition_of("late -n absent", "ResourcesResolved")?;
            if found["status"] == status {
                Ok(found)
            } else {
                Err(found.to_string())
            }
        });
        anyhow::Ok(found.await?)
    };
    let missing = resolved("False").await?;
    let message = missing["message"].as_str().unwrap_or_default();
    anyhow::ensure!(message.contains("absent-servers/late:add"), "{missing}");
    site.server("late")?;
    site.register("late", "late_")?;
    let found = resolved("True").await?;
    assert_eq!(found["reason"], "AllResolved");
    Ok(())
}
