//! Who owns which field of a child, and how little is written (operator.md 6): read from managedFields and audit log.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::time::Duration;

use anyhow::Context;
use mcp_gateway_e2e::{Cluster, OPERATOR_NAMESPACE, Site, apply, get, kubectl, kubectl_with};
use mcp_gateway_kit::{Kit, Request, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
/// Resyncs that have to pass without a write: two hours at the default interval.
const RESYNCS: u64 = 12;

/// Managers of an object with their operations, without those of a status.
fn managers(line: &str) -> anyhow::Result<Vec<(String, String)>> {
    let object: Value =
        serde_json::from_str(&kubectl(&format!("get {line} -o json --show-managed-fields"))?)?;
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(entries
        .iter()
        .filter(|entry| entry["subresource"].is_null())
        .map(|entry| (text(&entry["manager"]), text(&entry["operation"])))
        .collect())
}

fn env_names(deployment: &Value) -> String {
    deployment["spec"]["template"]["spec"]["containers"][0]["env"].to_string()
}

#[tokio::test]
async fn what_an_older_operator_wrote_is_handed_over_and_goes_with_its_feature() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("older")?;
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: store, namespace: older, labels: {mcp.kuadrant.io/secret: 'true'}}, \
        stringData: {CACHE_CONNECTION_STRING: 'redis://192.0.2.9:6379'}}",
    )?;
    apply(&site.extension("older", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n older")?;
    let ours = ("mcp-gateway-operator".to_owned(), "Apply".to_owned());
    for child in [
        "service",
        "role",
        "rolebinding",
        "serviceaccount",
        "networkpolicy",
    ] {
        let found = managers(&format!("{child} mcp-gateway -n older"))?;
        assert_eq!(
            found,
            std::slice::from_ref(&ours),
            "{child} was created by POST and is owned by one apply"
        );
    }
    let env = json!({"spec": {"template": {"spec": {"containers": [{"name": "mcp-gateway", "env": [
        {"name": "CACHE_CONNECTION_STRING", "valueFrom": {"secretKeyRef": {"name": "store", "key": "CACHE_CONNECTION_STRING"}}}]}]}}}});
    let words = [
        "patch",
        "deployment",
        "mcp-gateway",
        "-n",
        "older",
        "--field-manager=mcp_controller",
        "-p",
    ];
    let patch = env.to_string();
    let words: Vec<&str> = words.into_iter().chain([patch.as_str()]).collect();
    kubectl_with(&words, "")?;
    let with_store = site.extension("older", "ext", "mcp", "sessionStore: {secretName: store}");
    apply(&with_store)?;
    eventually(SOON, "the hand-over", async || {
        let found = managers("deployment mcp-gateway -n older").map_err(|error| format!("{error:#}"))?;
        if found.contains(&ours) && !found.iter().any(|(manager, _)| manager == "mcp_controller") {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    apply(&site.extension("older", "ext", "mcp", ""))?;
    eventually(SOON, "the variable to go", async || {
        let names = env_names(&get("deployment mcp-gateway -n older").map_err(|error| format!("{error:#}"))?);
        if names.contains("CACHE_CONNECTION_STRING") {
            Err(names)
        } else {
            Ok(())
        }
    })
    .await?;
    Ok(())
}

/// What the operator wrote since `mark`: everything but its own lease, claims and Events.
fn writes(mark: mcp_gateway_kit::AuditMark) -> anyhow::Result<Vec<String>> {
    let writes = Kit::from_env()?.writes_since(mark)?;
    let ours = writes.iter().filter(|write| {
        write.user.ends_with(":mcp-gateway-controller")
            && !["leases", "events"].contains(&write.resource.as_str())
    });
    Ok(ours
        .map(
            |Request {
                 verb,
                 resource,
                 subresource,
                 namespace,
                 name,
                 ..
             }| { format!("{verb} {resource} {subresource} {namespace}/{name}") },
        )
        .collect())
}

/// How often the operator evaluated an extension, and how many extensions there are.
async fn evaluations() -> anyhow::Result<(u64, u64)> {
    let pods = get(&format!(
        "pods -n {OPERATOR_NAMESPACE} -l app.kubernetes.io/name=mcp-gateway-operator --field-selector=status.phase=Running"
    ))?;
    let address = pods["items"][0]["status"]["podIP"]
        .as_str()
        .context("no operator pod")?;
    let text = reqwest::Client::builder()
        .no_proxy()
        .build()?
        .get(format!("http://{address}:8082/metrics"))
        .timeout(Duration::from_secs(5))
        .send()
        .await?
        .text()
        .await?;
    let value = |prefix: &str| {
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    Ok((
        value("mcp_gateway_reconcile_total{kind=\"Extension\""),
        value("mcp_gateway_objects{kind=\"MCPGatewayExtension\""),
    ))
}

fn operator_args(operation: &str) -> anyhow::Result<()> {
    let patch = match operation {
        "add" => {
            json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--resync-interval=1s"}])
        }
        _ => json!([{"op": "remove", "path": "/spec/template/spec/containers/0/args/2"}]),
    };
    let deployment = format!("deployment/mcp-gateway-controller -n {OPERATOR_NAMESPACE}");
    let mut words = vec!["patch"];
    words.extend(deployment.split(' '));
    let patch = patch.to_string();
    words.extend(["--type", "json", "-p", &patch]);
    kubectl_with(&words, "")?;
    kubectl(&format!("rollout status {deployment} --timeout=90s"))?;
    Ok(())
}

#[tokio::test]
async fn t26_hours_of_resyncs_write_nothing() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("hours")?;
    apply(&site.extension("hours", "ext", "mcp", "urlElicitation: Enabled"))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n hours-servers")?;
    operator_args("add")?;
    let quiet = resyncs_without_writes().await;
    operator_args("remove")?;
    quiet
}

async fn resyncs_without_writes() -> anyhow::Result<()> {
    let kit = Kit::from_env()?;
    let mut mark = kit.audit_mark()?;
    let mut begun = 0;
    let quiet = eventually(Duration::from_secs(120), "resyncs without a write", async || {
        let (evaluated, extensions) = evaluations().await.map_err(|error| format!("{error:#}"))?;
        let written = writes(mark).map_err(|error| format!("{error:#}"))?;
        if begun == 0 || evaluated < begun || !written.is_empty() {
            begun = evaluated;
            mark = kit.audit_mark().map_err(|error| error.to_string())?;
        }
        let passed = (evaluated - begun) / extensions.max(1);
        if passed >= RESYNCS {
            Ok(())
        } else {
            Err(format!(
                "{passed} resyncs since a write; written last: {written:?}"
            ))
        }
    });
    Ok(quiet.await?)
}
