//! The guide of isolated gateways (seed 002): one controller, a release with a Gateway for each of two teams, and the
//! guide's own cleanup. Its commands are given word by word.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{McpClient, apply, delete, get, kubectl};
use mcp_gateway_kit::eventually;
use mcp_gateway_ship::helm::Helm;
use serde_json::json;

use crate::{CLUSTER, cluster::prepare};

const SOON: Duration = Duration::from_secs(90);

const CONTROLLER: &str = "upgrade -i mcp-controller ./charts/mcp-gateway --namespace mcp-system --create-namespace \
    --set controller.enabled=true --set gateway.create=false --set httpRoute.create=false \
    --set mcpGatewayExtension.create=false --set envoyFilter.create=false";

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

/// A session with a team's gateway.
async fn client_of(team: &str) -> anyhow::Result<McpClient> {
    let gateway = get(&format!("gateway {team}-gateway -n gateway-system"))?;
    let address = gateway["status"]["addresses"][0]["value"]
        .as_str()
        .context("the Gateway has no address")?;
    let mut client = McpClient::new(
        &format!("http://{address}:8080/mcp"),
        &format!("{team}.127-0-0-1.sslip.io"),
    )?;
    client.initialize().await?;
    Ok(client)
}

#[tokio::test]
async fn each_team_of_the_guide_has_its_own_gateway_and_sees_only_its_own_tools() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: gateway-system}}")?;
    helm(CONTROLLER)?;
    for team in ["team-a", "team-b"] {
        helm(&release_of(team))?;
        kubectl(&format!("get gateway {team}-gateway -n gateway-system"))?;
        kubectl(&format!(
            "wait --for=condition=Ready mcpgatewayextension/{team}-mcp-gateway -n {team} --timeout=60s"
        ))?;
        server_of(team)?;
    }
    for (team, own, other) in [("team-a", "team_a_", "team_b_"), ("team-b", "team_b_", "team_a_")] {
        kubectl(&format!(
            "wait --for=condition=Ready mcpsr/tools -n {team} --timeout=90s"
        ))?;
        let client = client_of(team).await?;
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
    cleanup().await
}

/// The guide's cleanup, and nothing else; then nothing of it is left.
async fn cleanup() -> anyhow::Result<()> {
    helm("uninstall team-b-mcp-gateway -n team-b")?;
    helm("uninstall team-a-mcp-gateway -n team-a")?;
    helm("uninstall mcp-controller -n mcp-system")?;
    for namespace in ["team-b", "team-a", "mcp-system"] {
        kubectl(&format!("delete namespace {namespace} --timeout=90s"))?;
    }
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
