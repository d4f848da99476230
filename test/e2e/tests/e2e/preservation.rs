//! What users and other tools do to a broker's Deployment, in any order, with changes of the spec and crashes of the operator
//! between: in the end everything wanted is there, and everything of theirs.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::collections::BTreeMap;

use mcp_gateway_e2e::{Cluster, OPERATOR_NAMESPACE, get, kubectl, kubectl_with};
use mcp_gateway_kit::Kit;
use serde_json::{Value, json};

use crate::operator_children::{patch, ready_site, until};

/// Another order of steps for another seed.
const SEED: u32 = 20_261_122;
const STEPS: u32 = 15;
const DEPLOYMENT: &str = "deployment mcp-gateway -n mixed";

/// What has to be there in the end, by JSON pointer; the last change of each place counts.
type Expected = BTreeMap<String, Value>;

const KINDS: [fn(u32, &mut Expected) -> anyhow::Result<()>; 9] = [
    set_env,
    set_image,
    set_resources,
    scale,
    apply_as_gitops,
    patch_strategically,
    add_a_flag,
    change_the_spec,
    kill_the_operator,
];

#[tokio::test]
async fn every_change_of_a_user_is_kept_in_whatever_order_it_comes() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    ready_site("mixed").await?;
    let image = container(&get(DEPLOYMENT)?)["image"].clone();
    let (mut state, mut expected, mut order) = (SEED, Expected::new(), Vec::new());
    for turn in 0..STEPS {
        // Numerical Recipes' generator; the high bits are the good ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = usize::try_from(state >> 16)? % KINDS.len();
        order.push(kind);
        KINDS[kind](turn, &mut expected)?;
    }
    change_the_spec(STEPS, &mut expected)?;
    let flag = format!("--mcp-check-interval={}", 30 + STEPS);
    let has = |deployment: &Value, flag: &str| commands(deployment).iter().any(|token| token == flag);
    until(
        DEPLOYMENT,
        &format!("everything of {expected:?} after {order:?}"),
        |live| {
            let kept = expected
                .iter()
                .all(|(pointer, wanted)| match pointer.strip_prefix("flag ") {
                    Some(flag) => has(live, flag),
                    None => found(live, pointer).as_ref() == Some(wanted),
                });
            kept && has(live, &flag) && container(live)["image"] == image
        },
    )
    .await
    .map(drop)
}

/// The broker's container, by name.
fn container(deployment: &Value) -> &Value {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
    let mut containers = containers.expect("containers").iter();
    containers
        .find(|container| container["name"] == "mcp-gateway")
        .expect("ours")
}

fn commands(deployment: &Value) -> Vec<String> {
    let command = container(deployment)["command"].as_array();
    let tokens = command.into_iter().flatten().filter_map(Value::as_str);
    tokens.map(str::to_owned).collect()
}

/// The value at `pointer`; `env NAME` and `container /…` lie in the broker's container.
fn found(deployment: &Value, pointer: &str) -> Option<Value> {
    if let Some(name) = pointer.strip_prefix("env ") {
        let mut all = container(deployment)["env"].as_array()?.iter();
        return all
            .find(|entry| entry["name"] == name)
            .map(|entry| entry["value"].clone());
    }
    match pointer.strip_prefix("container ") {
        Some(pointer) => container(deployment).pointer(pointer).cloned(),
        None => deployment.pointer(pointer).cloned(),
    }
}

fn set_env(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    kubectl(&format!(
        "set env deployment/mcp-gateway -n mixed -c mcp-gateway USERS_{turn}=v{turn}"
    ))?;
    expected.insert(format!("env USERS_{turn}"), json!(format!("v{turn}")));
    Ok(())
}

/// The image is ours: it comes back.
fn set_image(turn: u32, _: &mut Expected) -> anyhow::Result<()> {
    kubectl(&format!(
        "set image deployment/mcp-gateway -n mixed mcp-gateway=example.com/other:{turn}"
    ))
    .map(drop)
}

fn set_resources(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    let memory = format!("{}Mi", 256 + turn);
    kubectl(&format!(
        "set resources deployment/mcp-gateway -n mixed -c mcp-gateway --limits=memory={memory}"
    ))?;
    expected.insert("container /resources/limits/memory".to_owned(), json!(memory));
    Ok(())
}

/// As an autoscaler does it.
fn scale(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    let replicas = 1 + turn % 2;
    kubectl(&format!("scale {DEPLOYMENT} --replicas={replicas}"))?;
    expected.insert("/spec/replicas".to_owned(), json!(replicas));
    Ok(())
}

/// A tool with a field manager of its own.
fn apply_as_gitops(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    let mark = format!("v{turn}");
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "mcp-gateway", "namespace": "mixed", "labels": {"gitops": mark}},
        "spec": {"template": {"metadata": {"annotations": {"gitops": mark}}}}});
    kubectl_with(
        &["apply", "--server-side", "--field-manager=gitops", "-f", "-"],
        &object.to_string(),
    )?;
    expected.insert("/metadata/labels/gitops".to_owned(), json!(mark));
    expected.insert(
        "/spec/template/metadata/annotations/gitops".to_owned(),
        json!(mark),
    );
    Ok(())
}

fn patch_strategically(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    let seconds = 40 + turn;
    let change = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": seconds}}}});
    patch(DEPLOYMENT, "strategic", &change)?;
    expected.insert(
        "/spec/template/spec/terminationGracePeriodSeconds".to_owned(),
        json!(seconds),
    );
    Ok(())
}

fn add_a_flag(turn: u32, expected: &mut Expected) -> anyhow::Result<()> {
    let flag = format!("--users-flag-{turn}=1");
    let change = json!([{"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": flag}]);
    patch(DEPLOYMENT, "json", &change)?;
    expected.insert(format!("flag {flag}"), Value::Null);
    Ok(())
}

fn change_the_spec(turn: u32, _: &mut Expected) -> anyhow::Result<()> {
    let change = json!({"spec": {"backendPingIntervalSeconds": 30 + turn}});
    patch("mcpge ext -n mixed", "merge", &change).map(drop)
}

fn kill_the_operator(_: u32, _: &mut Expected) -> anyhow::Result<()> {
    let pods = get(&format!(
        "pods -n {OPERATOR_NAMESPACE} -l app.kubernetes.io/name=mcp-gateway-operator"
    ))?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap_or_default();
    // It may be dead already.
    let _ = Kit::from_env()?.kill_container(OPERATOR_NAMESPACE, pod, "manager");
    Ok(())
}
