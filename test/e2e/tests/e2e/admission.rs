//! The admission case table through the real API server: the same cases as in `webhook/tests/suite/table.rs`, written
//! by kubectl as server-side dry runs, with the verdict that a user sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mcp_gateway_e2e::{Cluster, Written, apply, delete, kubectl, kubectl_with, write_dry};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

use crate::cases::{self, Case, Expected};

/// Namespaces with this label are not shown to the webhook, so that objects can be stored that it would refuse.
const UNSEEN: &str = "mcp-test/unseen";

/// Cases that the API server's own schema refuses need nothing around them, but for the object that they update.
fn stored(case: &Case) -> Vec<&Value> {
    let around = if case.schema {
        [].iter()
    } else {
        case.objects.iter()
    };
    around.chain(case.old.iter()).collect()
}

fn namespaces(cases: &[Case]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for case in cases {
        for object in stored(case).into_iter().chain([&case.write]) {
            if object["kind"] == "Namespace" {
                all.insert(
                    object["metadata"]["name"].as_str().unwrap().to_owned(),
                    object["metadata"]["labels"].clone(),
                );
            } else {
                all.entry(object["metadata"]["namespace"].as_str().unwrap().to_owned())
                    .or_insert(Value::Null);
            }
        }
    }
    all
}

/// Everything that has to be there before the writes. No pods: the operator would start a broker for each extension.
fn manifest(cases: &[Case]) -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, labels) in namespaces(cases) {
        let mut labels = if labels.is_null() { json!({}) } else { labels };
        labels[UNSEEN] = json!("");
        objects.push(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
        objects.push(json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "no-pods", "namespace": name}, "spec": {"hard": {"pods": "0"}}}));
    }
    for object in cases
        .iter()
        .flat_map(stored)
        .filter(|object| object["kind"] != "Namespace")
    {
        let mut object = object.clone();
        let members = object.as_object_mut().unwrap();
        members.remove("status");
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("deletionTimestamp");
        }
        if object["kind"] == "Gateway" {
            // A class that no controller serves.
            object["spec"]["gatewayClassName"] = json!("admission-table");
        }
        objects.push(object);
    }
    objects
}

fn set_statuses(cases: &[Case]) -> anyhow::Result<()> {
    for object in cases.iter().flat_map(stored) {
        let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
        let kind = object["kind"].as_str().unwrap_or_default();
        let (namespace, name) = (
            namespace.as_str().unwrap_or_default(),
            name.as_str().unwrap_or_default(),
        );
        if !object["metadata"]["deletionTimestamp"].is_null() {
            kubectl(&format!("delete {kind} {name} -n {namespace} --wait=false"))?;
        }
        if kind == "HTTPRoute" && !object["status"].is_null() {
            let patch = json!({"status": object["status"]}).to_string();
            let words = [
                "patch",
                kind,
                name,
                "-n",
                namespace,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ];
            kubectl_with(&words, "")?;
        }
    }
    Ok(())
}

fn hide_unseen_namespaces() -> anyhow::Result<()> {
    let selector = json!({"matchExpressions": [{"key": UNSEEN, "operator": "DoesNotExist"}]});
    let patch = json!([
        {"op": "add", "path": "/webhooks/0/namespaceSelector", "value": selector},
        {"op": "add", "path": "/webhooks/1/namespaceSelector", "value": selector},
        {"op": "add", "path": "/webhooks/2/namespaceSelector", "value": selector},
    ])
    .to_string();
    let words = [
        "patch",
        "validatingwebhookconfiguration",
        "mcp-gateway-webhook",
        "--type=json",
        "-p",
        &patch,
    ];
    kubectl_with(&words, "").map(drop)
}

fn problems(case: &Case, written: &Written) -> Vec<String> {
    let mut problems = Vec::new();
    let verdict = match (written.accepted, written.warnings.is_empty()) {
        (false, _) => Expected::Deny,
        (true, false) => Expected::Warn,
        (true, true) => Expected::Allow,
    };
    if verdict != case.expect {
        problems.push(format!(
            "{verdict:?} instead of {:?}: {}",
            case.expect, written.error
        ));
    }
    if case.schema {
        return problems;
    }
    let lines = written
        .error
        .split_once("denied the request: ")
        .map_or("", |(_, lines)| lines);
    compare(
        "line",
        &case.lines,
        &lines.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        &mut problems,
    );
    compare(
        "warning",
        &case.warnings,
        &written.warnings.iter().map(String::as_str).collect::<Vec<_>>(),
        &mut problems,
    );
    problems
}

fn compare(what: &str, expected: &[String], given: &[&str], problems: &mut Vec<String>) {
    for text in expected {
        if !given.iter().any(|line| line.contains(text.as_str())) {
            problems.push(format!("no {what} has {text:?}"));
        }
    }
    if expected.len() != given.len() {
        problems.push(format!(
            "{} {what}s instead of {}: {given:#?}",
            given.len(),
            expected.len()
        ));
    }
}

/// The webhook's caches are behind by moments, so a case has some time to come right.
async fn judge(case: &Case) -> Result<(), String> {
    let mut write = case.write.clone();
    if let Some(metadata) = write["metadata"].as_object_mut() {
        metadata.remove("deletionTimestamp");
    }
    let verb = if case.old.is_some() { "replace" } else { "create" };
    let judged = eventually(Duration::from_secs(15), &case.name, async || {
        let written = write_dry(verb, &write.to_string()).map_err(|error| format!("{error:#}"))?;
        let problems = problems(case, &written);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("; "))
        }
    });
    judged.await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_table_gets_its_verdict_from_the_real_api_server() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| case.in_process_only.is_none())
        .collect();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    hide_unseen_namespaces()?;
    let documents: Vec<String> = manifest(&cases).iter().map(Value::to_string).collect();
    eventually(Duration::from_secs(30), "the selector to hold", async || {
        apply(&documents.join("\n---\n")).map_err(|error| format!("{error:#}"))
    })
    .await?;
    set_statuses(&cases)?;
    kubectl(&format!("label namespace -l {UNSEEN} {UNSEEN}-"))?;

    let mut failures = Vec::new();
    for case in &cases {
        failures.extend(judge(case).await.err());
    }
    let names: BTreeSet<String> = namespaces(&cases).into_keys().collect();
    let names: Vec<String> = names.into_iter().collect();
    delete(&format!("namespace --wait=false {}", names.join(" ")))?;
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn a_second_apply_of_the_same_manifest_changes_nothing() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: gitops}}")?;
    let manifest = "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {name: e, namespace: gitops}, \
        spec: {targetRef: {name: later, sectionName: mcp}}}";
    apply(manifest)?;
    let stored = mcp_gateway_e2e::get("mcpge e -n gitops")?;
    assert_eq!(
        stored["spec"]["targetRef"]["namespace"], "gitops",
        "the webhook's default"
    );
    // `kubectl diff` ends with 1 when there is a difference.
    kubectl_with(&["diff", "-f", "-"], manifest)?;
    let generation = &stored["metadata"]["generation"];
    apply(manifest)?;
    kubectl_with(
        &[
            "apply",
            "--server-side",
            "--field-manager=flux",
            "--force-conflicts",
            "-f",
            "-",
        ],
        manifest,
    )?;
    kubectl_with(
        &[
            "apply",
            "--server-side",
            "--field-manager=flux",
            "--force-conflicts",
            "-f",
            "-",
        ],
        manifest,
    )?;
    let after = mcp_gateway_e2e::get("mcpge e -n gitops")?;
    assert_eq!(&after["metadata"]["generation"], generation);
    assert_eq!(after["spec"], stored["spec"]);
    delete("mcpge e -n gitops")?;
    Ok(())
}
