//! What users patch in a broker's Deployment: it survives whatever the operator writes beside it.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use mcp_gateway_e2e::{Cluster, get};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

use crate::operator_children::{SOON, events, patch, ready_site, until};

fn container<'a>(deployment: &'a Value, name: &str) -> &'a Value {
    let containers = deployment["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("containers");
    containers
        .iter()
        .find(|container| container["name"] == name)
        .expect("the container")
}

#[tokio::test]
async fn t18_t20_t24_a_users_patches_survive_a_spec_change() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("patches").await?;
    let sidecar = json!({"name": "sidecar", "image": "ghcr.io/mcp-gateway-operator/sample-python:2.3.0", "command": ["sleep", "3600"]});
    let changes = json!([
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/labels/team", "value": "blue"},
        {"op": "add", "path": "/spec/template/spec/tolerations", "value": [{"key": "gpu", "operator": "Exists"}]},
        {"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": "--log-format"},
        {"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": "json"},
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "CACHE_CONNECTION_STRING", "value": ""}},
        {"op": "add", "path": "/spec/template/spec/containers/0/resources", "value": {"limits": {"memory": "256Mi"}}},
        {"op": "add", "path": "/spec/template/spec/containers/0/readinessProbe/periodSeconds", "value": 3},
    ]);
    patch("deployment mcp-gateway -n patches", "json", &changes)?;
    let first = json!([{"op": "add", "path": "/spec/template/spec/containers/0", "value": sidecar}]);
    patch("deployment mcp-gateway -n patches", "json", &first)?;
    patch(
        "mcpge ext -n patches",
        "merge",
        &json!({"spec": {"backendPingIntervalSeconds": 30, "logLevel": "warn"}}),
    )?;
    let changed = until(
        "deployment mcp-gateway -n patches",
        "the change in the Deployment",
        |deployment| {
            container(deployment, "mcp-gateway")["command"]
                .to_string()
                .contains("--mcp-check-interval=30")
        },
    );
    let deployment = changed.await?;
    let ours = container(&deployment, "mcp-gateway");
    let command = ours["command"].to_string();
    assert!(
        command.contains(r#""--log-level=4""#) && command.ends_with(r#""--log-format","json"]"#),
        "{command}"
    );
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["labels"]["team"], "blue");
    assert_eq!(
        deployment["spec"]["template"]["spec"]["tolerations"][0]["key"],
        "gpu"
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["name"],
        "sidecar"
    );
    assert_eq!(
        container(&deployment, "sidecar")["command"],
        json!(["sleep", "3600"])
    );
    assert_eq!(ours["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(ours["readinessProbe"]["periodSeconds"], 3);
    assert!(
        ours["env"].to_string().contains("CACHE_CONNECTION_STRING"),
        "{ours}"
    );
    Ok(())
}

#[tokio::test]
async fn t23_setting_and_unsetting_a_field_removes_only_our_flag() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("unset").await?;
    let set = json!({"spec": {"maxBodyBytes": 8_388_608, "urlElicitation": "Enabled"}});
    patch("mcpge ext -n unset", "merge", &set)?;
    let has = |deployment: &Value, flag: &str| {
        container(deployment, "mcp-gateway")["command"]
            .to_string()
            .contains(flag)
    };
    until("deployment mcp-gateway -n unset", "the flags", |found| {
        has(found, "--max-request-body-size=8388608") && has(found, "--enable-url-elicitation")
    })
    .await?;
    until(
        "httproute mcp-gateway-tokens-route -n unset",
        "the token route",
        |_| true,
    )
    .await?;
    until(
        "envoyfilter mcp-ext-proc-unset-gateway -n unset-gw",
        "the buffer",
        |filter| filter["spec"]["configPatches"].to_string().contains("8454144"),
    )
    .await?;
    patch(
        "mcpge ext -n unset",
        "merge",
        &json!({"spec": {"maxBodyBytes": null, "urlElicitation": "Disabled"}}),
    )?;
    until("deployment mcp-gateway -n unset", "the flags to go", |found| {
        !has(found, "--max-request-body-size") && !has(found, "--enable-url-elicitation")
    })
    .await?;
    eventually(SOON, "the token route to go", async || {
        match get("httproute mcp-gateway-tokens-route -n unset") {
            Ok(route) => Err(route.to_string()),
            Err(_) => Ok(()),
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t27_no_patch_is_lost_between_our_read_and_our_write() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("race").await?;
    for turn in 0..10 {
        let flag = json!([{"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": format!("--log-format=json{turn}")}]);
        let interval = json!({"spec": {"backendPingIntervalSeconds": 30 + turn}});
        let users =
            tokio::task::spawn_blocking(move || patch("deployment mcp-gateway -n race", "json", &flag));
        let spec = tokio::task::spawn_blocking(move || patch("mcpge ext -n race", "merge", &interval));
        users.await??;
        spec.await??;
    }
    let last = until(
        "deployment mcp-gateway -n race",
        "the last interval",
        |deployment| {
            container(deployment, "mcp-gateway")["command"]
                .to_string()
                .contains("--mcp-check-interval=39")
        },
    );
    let command = container(&last.await?, "mcp-gateway")["command"].to_string();
    for turn in 0..10 {
        assert!(
            command.contains(&format!("--log-format=json{turn}\"")),
            "{turn}: {command}"
        );
    }
    // Nobody touched what is ours, whatever collided.
    assert_eq!(events("DriftReverted", "race")?, 0);
    Ok(())
}
