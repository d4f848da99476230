//! What the first issue of the project demands of an installation, whoever made it: calls through Envoy, refusals, patches
//! that stay, verdicts on bad input, and healing. Each function wants a site that has no extension yet, or says otherwise.

use std::time::Duration;

use anyhow::ensure;
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

use crate::{
    Load, OPERATOR_NAMESPACE, Site,
    kubectl::{apply, get, kubectl, refused},
};

/// Operator, both replicas of the webhook, broker.
const VICTIMS: usize = 4;

/// Tools of two servers, with prefixes `one_` and `two_`, are listed and called through Envoy.
///
/// # Errors
/// When something does not answer as it should.
pub async fn two_servers_are_served(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    apply(&site.extension(name, "ext", "mcp", ""))?;
    for server in ["one", "two"] {
        site.server(server)?;
        site.register(server, &format!("{server}_"))?;
    }
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    for server in ["one", "two"] {
        site.wait_ready(&format!("mcpsr/{server} -n {name}-servers"))?;
    }
    let mut client = site.client().await?;
    let server = client.initialize().await?;
    ensure!(server["serverInfo"]["name"] == "Kuadrant MCP Gateway", "{server}");
    let tools = client.tools().await?;
    for tool in ["one_add", "two_add"] {
        ensure!(tools.contains(&tool.to_owned()), "{tools:?}");
        let result = client.call(tool, json!({"a": 19, "b": 23})).await?;
        ensure!(result["content"][0]["text"] == "42", "{result}");
    }
    Ok(())
}

/// A second extension in the namespace, and one for the same Gateway, are refused before they are stored. The site has `ext`.
///
/// # Errors
/// When one is accepted, or refused without saying why.
pub fn second_extensions_are_refused(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    let text = refused(&site.extension(name, "another", "other", ""))?;
    ensure!(
        text.contains("already has MCPGatewayExtension") && text.contains("only one per namespace allowed"),
        "{text}"
    );
    let text = refused(&site.extension(&format!("{name}-gw"), "rival", "other", ""))?;
    ensure!(
        text.contains("only one per Gateway allowed") && text.contains("spec.targetRef"),
        "{text}"
    );
    Ok(())
}

/// The patch of the install guide: a volume, a mount, a flag; with the Secret that it names.
///
/// # Errors
/// When the Secret is refused.
pub fn install_guides_patch(site: &Site) -> anyhow::Result<Vec<Value>> {
    apply(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: my-ca-bundle, namespace: {}}}, stringData: {{ca.crt: ''}}}}",
        site.name()
    ))?;
    Ok(vec![
        json!({"op": "add", "path": "/spec/template/spec/volumes/-",
            "value": {"name": "gateway-ca", "secret": {"secretName": "my-ca-bundle"}}}),
        json!({"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-",
            "value": {"name": "gateway-ca", "mountPath": "/certs/gateway-ca.crt", "subPath": "ca.crt", "readOnly": true}}),
        json!({"op": "add", "path": "/spec/template/spec/containers/0/command/-",
            "value": "--gateway-ca-cert=/certs/gateway-ca.crt"}),
    ])
}

/// Fails unless volume, mount and flag of [`install_guides_patch`] are in a broker's Deployment.
///
/// # Errors
/// When one is missing.
pub fn install_guides_patch_is_in(deployment: &Value) -> anyhow::Result<()> {
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let has = |part: &Value, text: &str| part.to_string().contains(text);
    ensure!(
        has(
            &container["command"],
            "\"--gateway-ca-cert=/certs/gateway-ca.crt\""
        ),
        "the flag: {container}"
    );
    ensure!(
        has(&container["volumeMounts"], "/certs/gateway-ca.crt"),
        "the mount: {container}"
    );
    ensure!(has(&pod["volumes"], "my-ca-bundle"), "the volume: {pod}");
    Ok(())
}

/// The install guide's patch survives a change of the spec, which rolls the Deployment. The site has `ext`.
///
/// # Errors
/// When something of the patch is lost.
pub async fn the_install_guides_patch_stays(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    let patch = Value::from(install_guides_patch(site)?);
    kubectl(&format!(
        "patch deployment mcp-gateway -n {name} --type=json -p {patch}"
    ))?;
    kubectl(&format!(
        r#"patch mcpge ext -n {name} --type=merge -p {{"spec":{{"backendPingIntervalSeconds":30}}}}"#
    ))?;
    let line = format!("deployment mcp-gateway -n {name}");
    let changed = async || {
        let deployment = get(&line).map_err(|error| format!("{error:#}"))?;
        let command = deployment["spec"]["template"]["spec"]["containers"][0]["command"].to_string();
        command
            .contains("--mcp-check-interval=30")
            .then_some(())
            .ok_or(command)
    };
    eventually(
        Duration::from_secs(30),
        "the new interval in the Deployment",
        changed,
    )
    .await?;
    install_guides_patch_is_in(&get(&line)?)?;
    kubectl(&format!(
        "rollout status deployment/mcp-gateway -n {name} --timeout=90s"
    ))
    .map(drop)
}

/// Bad input is refused or gets a status that names the field and what mends it, and disturbs nobody.
///
/// # Errors
/// When one is taken, or its refusal says too little.
pub async fn bad_input_is_named(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    let text = refused(&site.extension(name, "ext", "mcp", "publicHost: 'http://x'"))?;
    ensure!(text.contains("spec.publicHost"), "{text}");
    apply(&site.extension(name, "ext", "nope", ""))?;
    let extension = format!("mcpge/ext -n {name}");
    let message = site
        .wait_not_ready(&extension, "InvalidMCPGatewayExtension")
        .await?;
    ensure!(
        message.contains("listener nope not found") && message.contains("mcp, mcps, other"),
        "{message}"
    );
    kubectl(&format!("delete referencegrant allow-{name} -n {name}-gw"))?;
    let message = site.wait_not_ready(&extension, "ReferenceGrantRequired").await?;
    ensure!(
        message.contains(&format!("ReferenceGrant required in namespace {name}-gw")),
        "{message}"
    );
    site.grant(name)?;
    apply(&site.extension(name, "ext", "mcp", ""))?;
    site.server("good")?;
    site.register("good", "good_")?;
    two_backends(site)?;
    let message = site
        .wait_not_ready(&format!("mcpsr/split -n {name}-servers"), "NotReady")
        .await?;
    ensure!(
        message.contains(&format!("HTTPRoute {name}-servers/split")) && message.contains("> 1 backendRefs"),
        "{message}"
    );
    site.wait_ready(&extension)?;
    site.wait_ready(&format!("mcpsr/good -n {name}-servers"))
}

fn two_backends(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: split, namespace: {name}-servers}}, spec: {{\
        parentRefs: [{{name: gw, namespace: {name}-gw, sectionName: mcps}}], hostnames: [split.{name}.local], \
        rules: [{{backendRefs: [{{name: good, port: 8000}}, {{name: good, port: 8000, weight: 2}}]}}]}}}}"
    ))?;
    site.register("split", "split_")
}

/// Kills operator, webhooks and broker of a site that serves, one after the other. Nothing but a broker carries calls: whoever
/// else dies, each of them succeeds, and after the broker's death they do again.
///
/// # Errors
/// When a call fails that should not, or nothing answers any more.
pub async fn whoever_is_killed_calls_work(site: &Site, tool: &str) -> anyhow::Result<()> {
    let kit = Kit::from_env()?;
    let others = our_containers(OPERATOR_NAMESPACE)?;
    let brokers = our_containers(site.name())?;
    ensure!(others.len() + brokers.len() == VICTIMS, "{others:?} {brokers:?}");
    let load = Load::start(site, tool).await?;
    for (pod, container) in others {
        kill(&kit, (OPERATOR_NAMESPACE, &pod), &container).await?;
        load.further(10).await?;
    }
    load.stop().await?;
    for (pod, container) in brokers {
        kill(&kit, (site.name(), &pod), &container).await?;
    }
    calls_work(site, tool).await
}

/// Kills a container, as soon as it runs.
async fn kill(kit: &Kit, (namespace, pod): (&str, &str), container: &str) -> anyhow::Result<()> {
    let alive = async || {
        kit.kill_container(namespace, pod, container)
            .map_err(|error| error.to_string())
    };
    Ok(eventually(Duration::from_secs(30), "a container to be killed", alive).await?)
}

/// Containers of the pods that stay in a namespace: pod and container.
///
/// # Errors
/// When they cannot be listed.
pub fn our_containers(namespace: &str) -> anyhow::Result<Vec<(String, String)>> {
    let pods = get(&format!("pods -n {namespace}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = pods["items"].as_array().into_iter().flatten();
    Ok(pods
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            (
                text(&pod["metadata"]["name"]),
                text(&pod["spec"]["containers"][0]["name"]),
            )
        })
        .collect())
}

/// A fresh session adds two numbers with `tool`; retried, because a killed process needs a moment.
///
/// # Errors
/// When no call is answered within a minute, or wrongly.
pub async fn calls_work(site: &Site, tool: &str) -> anyhow::Result<()> {
    let result = eventually(Duration::from_secs(60), "a call to be answered", async || {
        let attempt = async {
            let mut client = site.client().await?;
            client.initialize().await?;
            client.call(tool, json!({"a": 1, "b": 2})).await
        };
        attempt.await.map_err(|error: anyhow::Error| format!("{error:#}"))
    })
    .await?;
    ensure!(result["content"][0]["text"] == "3", "{result}");
    Ok(())
}
