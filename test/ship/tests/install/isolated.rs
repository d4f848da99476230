//! The guide of isolated gateways: one controller, a release with a Gateway for each of two teams, and the guide's own cleanup.
//! Team A follows our guide as it stands, team B the older one (seed 002) word by word.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Block, McpClient, Reader, apply, delete, get, kubectl};
use mcp_gateway_kit::eventually;
use mcp_gateway_ship::helm::Helm;
use serde_json::json;

use crate::{CLUSTER, cluster::prepare};

const SOON: Duration = Duration::from_secs(90);

const GUIDE: &str = "docs/guides/isolated-gateways.md";

fn release_of(team: &str) -> String {
    format!(
        "upgrade -i {team}-mcp-gateway ./charts/mcp-gateway --namespace {team} --create-namespace \
        --set controller.enabled=false --set broker.create=true --set gateway.create=true \
        --set gateway.name={team}-gateway --set gateway.namespace=gateway-system \
        --set gateway.publicHost={team}.127-0-0-1.sslip.io --set gateway.internalHostPattern=*.{team}.mcp.local \
        --set httpRoute.create=true --set mcpGatewayExtension.create=true \
        --set mcpGatewayExtension.gatewayRef.name={team}-gateway \
        --set mcpGatewayExtension.gatewayRef.namespace=gateway-system \
        --set envoyFilter.create=true --set envoyFilter.name={team}-gateway"
    )
}

fn helm(line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Helm::V3.output(&words)
}

/// An MCP server of a team in its own namespace, registered with its own prefix.
fn server_of(team: &str) -> anyhow::Result<()> {
    let meta = format!("metadata: {{name: tools, namespace: {team}}}");
    let prefix = team.replace('-', "_");
    apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, {meta}, spec: {{selector: {{matchLabels: {{app: tools}}}}, \
        template: {{metadata: {{labels: {{app: tools}}}}, spec: {{containers: [{{name: server, \
        image: 'ghcr.io/mcp-gateway-operator/sample-python:2.3.0', ports: [{{name: http, containerPort: 8000}}], \
        readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}}}]}}}}}}}}\n---\n\
        {{apiVersion: v1, kind: Service, {meta}, spec: {{selector: {{app: tools}}, ports: [{{name: http, port: 8000}}]}}}}\n---\n\
        {{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, {meta}, spec: {{\
        parentRefs: [{{name: {team}-gateway, namespace: gateway-system}}], hostnames: [tools.{team}.mcp.local], \
        rules: [{{backendRefs: [{{name: tools, port: 8000}}]}}]}}}}\n---\n\
        {{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, {meta}, \
        spec: {{targetRef: {{name: tools}}, prefix: {prefix}_}}}}"
    ))?;
    Ok(())
}

/// A session with a team's gateway, by its public host.
async fn client_of(team: &str, host: &str) -> anyhow::Result<McpClient> {
    let gateway = get(&format!("gateway {team}-gateway -n gateway-system"))?;
    let address = gateway["status"]["addresses"][0]["value"]
        .as_str()
        .context("the Gateway has no address")?;
    let mut client = McpClient::new(&format!("http://{address}:8080/mcp"), host)?;
    client.initialize().await?;
    Ok(client)
}

#[tokio::test]
async fn each_team_of_the_guide_has_its_own_gateway_and_sees_only_its_own_tools() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    let helm_folder = Helm::V3
        .program()?
        .parent()
        .context("helm has no folder")?
        .to_owned();
    let reader = Reader::new("isolated")?.with_programs(helm_folder);
    let blocks = Reader::blocks(GUIDE)?;
    let [install, annotate, cleanup] = blocks.as_slice() else {
        anyhow::bail!("{GUIDE}: {} blocks", blocks.len())
    };
    reader.run(install)?;
    helm(&release_of("team-b"))?;
    kubectl("wait --for=condition=Ready mcpgatewayextension/team-b-mcp-gateway -n team-b --timeout=60s")?;
    for team in ["team-a", "team-b"] {
        server_of(team)?;
    }
    one_for_two_teams(&reader, annotate)?;
    for (team, host, own, other) in [
        ("team-a", "team-a.example.com", "team_a_", "team_b_"),
        ("team-b", "team-b.127-0-0-1.sslip.io", "team_b_", "team_a_"),
    ] {
        kubectl(&format!(
            "wait --for=condition=Ready mcpsr/tools -n {team} --timeout=90s"
        ))?;
        let client = client_of(team, host).await?;
        let tools = client.server_tools().await?;
        ensure!(
            !tools.is_empty() && tools.iter().all(|tool| tool.starts_with(own)),
            "{team}: {tools:?}"
        );
        let sum = client.call(&format!("{own}add"), json!({"a": 1, "b": 2})).await?;
        assert_eq!(sum["content"][0]["text"], "3", "{sum}");
        let refused = client.call(&format!("{other}add"), json!({"a": 1, "b": 2})).await;
        ensure!(refused.is_err(), "{team} called a tool of the other team");
    }
    cleaned(&reader, cleanup).await
}

/// The Gateway of the guide's second part; that teams can share it is tested with the operator (T8).
fn one_for_two_teams(reader: &Reader, annotate: &Block) -> anyhow::Result<()> {
    apply(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: shared, namespace: gateway-system}, \
        spec: {gatewayClassName: istio, listeners: [{name: mcp, port: 8080, protocol: HTTP}]}}",
    )?;
    reader.run(annotate)?;
    let gateway = get("gateway shared -n gateway-system")?;
    let scope = &gateway["metadata"]["annotations"]["mcp.kuadrant.io/extension-scope"];
    ensure!(scope == "Listener", "{scope}");
    delete("gateway shared -n gateway-system").map(drop)
}

/// The guide's cleanup, and nothing else; then nothing of it is left.
async fn cleaned(reader: &Reader, cleanup: &Block) -> anyhow::Result<()> {
    reader.run(cleanup)?;
    let kinds = "mcpge,mcpsr,gateway,referencegrant,envoyfilter";
    eventually(SOON, "nothing to be left of the guide", async || {
        let mut left = kubectl(&format!("get {kinds} -A -o name")).map_err(|error| format!("{error:#}"))?;
        let cluster = "get validatingwebhookconfigurations,mutatingwebhookconfigurations -o name";
        left += &kubectl(cluster).map_err(|error| format!("{error:#}"))?;
        let ours: Vec<&str> = left
            .lines()
            .filter(|line| line.contains("team-") || line.contains("mcp"))
            .collect();
        if ours.is_empty() {
            Ok(())
        } else {
            Err(ours.join(", "))
        }
    })
    .await?;
    delete("namespace gateway-system")?;
    for plural in [
        "mcpgatewayextensions",
        "mcpserverregistrations",
        "mcpvirtualservers",
        "mcpauthpolicies",
    ] {
        delete(&format!("crd {plural}.mcp.kuadrant.io"))?;
    }
    Ok(())
}
