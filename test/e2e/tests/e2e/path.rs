//! The main job: from custom resources to a tool call through Envoy, and what a user does around it.

use std::time::Duration;

use crate::operator_children::events;
use mcp_gateway_e2e::{Cluster, Site, apply, get, kubectl, refused};
use mcp_gateway_kit::eventually;
use serde_json::json;

#[tokio::test]
async fn tools_of_two_servers_are_listed_and_called_through_envoy() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("path")?;
    apply(&site.extension("path", "ext", "mcp", ""))?;
    site.server("one")?;
    site.server("two")?;
    site.register("one", "one_")?;
    site.register("two", "two_")?;
    site.wait_ready("mcpge/ext -n path")?;
    site.wait_ready("mcpsr/one -n path-servers")?;
    site.wait_ready("mcpsr/two -n path-servers")?;
    let mut client = site.client().await?;
    let server = client.initialize().await?;
    assert_eq!(server["serverInfo"]["name"], "Kuadrant MCP Gateway");
    let tools = client.tools().await?;
    assert!(
        tools.contains(&"one_add".to_owned()) && tools.contains(&"two_add".to_owned()),
        "{tools:?}"
    );
    for tool in ["one_add", "two_add"] {
        let result = client.call(tool, json!({"a": 19, "b": 23})).await?;
        assert_eq!(result["content"][0]["text"], "42", "{result}");
    }
    Ok(())
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
    let text = refused(&site.extension("second", "another", "other", ""))?;
    assert!(
        text.contains("already has MCPGatewayExtension") && text.contains("only one per namespace allowed"),
        "{text}"
    );
    let text = refused(&site.extension("second-gw", "rival", "other", ""))?;
    assert!(
        text.contains("only one per Gateway allowed") && text.contains("spec.targetRef"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn t21_the_install_guides_patch_survives_a_spec_change() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("patch")?;
    apply("{apiVersion: v1, kind: Secret, metadata: {name: my-ca-bundle, namespace: patch}, stringData: {ca.crt: ''}}").ok();
    apply(&site.extension("patch", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n patch")?;
    let patch = r#"[{"op":"add","path":"/spec/template/spec/volumes/-","value":{"name":"gateway-ca","secret":{"secretName":"my-ca-bundle"}}},{"op":"add","path":"/spec/template/spec/containers/0/volumeMounts/-","value":{"name":"gateway-ca","mountPath":"/certs/gateway-ca.crt","subPath":"ca.crt","readOnly":true}},{"op":"add","path":"/spec/template/spec/containers/0/command/-","value":"--gateway-ca-cert=/certs/gateway-ca.crt"}]"#;
    kubectl(&format!(
        "patch deployment mcp-gateway -n patch --type=json -p {patch}"
    ))?;
    kubectl(r#"patch mcpge ext -n patch --type=merge -p {"spec":{"backendPingIntervalSeconds":30}}"#)?;
    eventually(
        Duration::from_secs(30),
        "the new interval in the Deployment",
        async || {
            let deployment = get("deployment mcp-gateway -n patch").map_err(|error| format!("{error:#}"))?;
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let command = container["command"].to_string();
            command
                .contains("--mcp-check-interval=30")
                .then_some(())
                .ok_or(command)
        },
    )
    .await?;
    let deployment = get("deployment mcp-gateway -n patch")?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(
        container["command"]
            .to_string()
            .contains("--gateway-ca-cert=/certs/gateway-ca.crt"),
        "{container}"
    );
    assert!(
        container["volumeMounts"]
            .to_string()
            .contains("/certs/gateway-ca.crt"),
        "{container}"
    );
    assert!(pod["volumes"].to_string().contains("my-ca-bundle"), "{pod}");
    kubectl("rollout status deployment/mcp-gateway -n patch --timeout=90s")?;
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
    let site = Site::create("bad")?;
    let text = refused(&site.extension("bad", "ext", "mcp", "publicHost: 'http://x'"))?;
    assert!(text.contains("spec.publicHost"), "{text}");
    apply(&site.extension("bad", "ext", "nope", ""))?;
    let message = site
        .wait_not_ready("mcpge/ext -n bad", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("listener nope not found") && message.contains("mcp, mcps, other"),
        "{message}"
    );
    kubectl("delete referencegrant allow-bad -n bad-gw")?;
    let message = site
        .wait_not_ready("mcpge/ext -n bad", "ReferenceGrantRequired")
        .await?;
    assert!(
        message.contains("ReferenceGrant required in namespace bad-gw"),
        "{message}"
    );
    site.grant("bad")?;
    apply(&site.extension("bad", "ext", "mcp", ""))?;
    site.server("good")?;
    site.register("good", "good_")?;
    two_backends(&site)?;
    let message = site
        .wait_not_ready("mcpsr/split -n bad-servers", "NotReady")
        .await?;
    assert!(
        message.contains("HTTPRoute bad-servers/split") && message.contains("> 1 backendRefs"),
        "{message}"
    );
    site.wait_ready("mcpge/ext -n bad")?;
    site.wait_ready("mcpsr/good -n bad-servers")?;
    Ok(())
}

fn two_backends(site: &Site) -> anyhow::Result<()> {
    apply(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: split, namespace: bad-servers}, spec: {\
        parentRefs: [{name: gw, namespace: bad-gw, sectionName: mcps}], hostnames: [split.bad.local], \
        rules: [{backendRefs: [{name: good, port: 8000}, {name: good, port: 8000, weight: 2}]}]}}",
    )?;
    site.register("split", "split_")
}
