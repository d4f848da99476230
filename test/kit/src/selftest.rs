//! The kit's own integration test: a Gateway, a server on the Python SDK, a route, and an answer through Envoy.

use std::time::Duration;

use anyhow::Context as _;
use gateway_api::apis::standard::gateways::Gateway;
use kube::api::Api;
use serde_json::json;

use crate::apply::apply_yaml;
use crate::control_plane;
use crate::eventually::eventually;
use crate::progress::Step;
use crate::state_dir::StateDir;

const MANIFESTS: &str = include_str!("../manifests/selftest.yaml");
const NAMESPACE: &str = "selftest";

/// Runs every step and prints its time; the first failure ends it.
pub(crate) async fn run() -> anyhow::Result<()> {
    let dir = std::env::var_os("MCPGW_KIT_DIR").context("run me inside: kit run -- kit selftest")?;
    let state = StateDir::new(dir.into());
    let client = control_plane::client(&state.kubeconfig()).await?;

    let step = Step::quiet("apply Gateway, Deployment, Service and HTTPRoute");
    apply_yaml(&client, MANIFESTS, "selftest", NAMESPACE).await?;
    step.done();

    let step = Step::quiet("Gateway is Programmed");
    let gateways: Api<Gateway> = Api::namespaced(client.clone(), NAMESPACE);
    eventually(
        Duration::from_secs(60),
        "the Gateway to be Programmed",
        async || {
            let gateway = gateways
                .get("selftest")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = gateway
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let shown: Vec<String> = conditions
                .iter()
                .map(|it| format!("{}={} {}", it.type_, it.status, it.message))
                .collect();
            let programmed = conditions
                .iter()
                .any(|it| it.type_ == "Programmed" && it.status == "True");
            if programmed { Ok(()) } else { Err(shown.join("; ")) }
        },
    )
    .await?;
    step.done();

    let step = Step::quiet("initialize is answered through Envoy");
    let answer = eventually(
        Duration::from_secs(60),
        "an answer of the server through Envoy",
        initialize,
    )
    .await?;
    step.done();
    anyhow::ensure!(
        answer.contains("\"weather\""),
        "the answer is not the server's: {answer}"
    );
    Ok(())
}

async fn initialize() -> Result<String, String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "selftest", "version": "0"}}});
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client
        .post(format!(
            "http://selftest-istio.{NAMESPACE}.svc.cluster.local:8001/mcp"
        ))
        .header("host", "weather.example.com")
        .header("accept", "application/json, text/event-stream")
        .json(&body)
        .timeout(Duration::from_secs(5))
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}
