//! What was stored under a released version is still good: the real API server holds objects under the released CRDs, gets this
//! tree's, and takes every edit; CEL rules included, which OLM does not evaluate (olm.md 2.2, 6.7).

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{apply, get, kubectl, kubectl_with};
use serde_json::{Value, json};

use crate::{
    CLUSTER, cases,
    cluster::{clear, note, prepare},
    olm::Bundle,
};

const NAMESPACE: &str = "stored";
const KINDS: &str = "mcpge,mcpsr,mcpvs,mcpap";
/// Fewer than this would prove little: each kind has dozens of cases.
const ENOUGH: usize = 50;

#[tokio::test]
async fn o7_what_was_stored_under_a_release_can_be_edited_under_this_tree() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    for released in Bundle::released()? {
        apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string(),
        )?;
        released.crds()?;
        let stored = store(&released)?;
        Bundle::candidate()?
            .crds()
            .context("this tree's CRDs in the place of the released ones")?;
        let after = list()?;
        for (before, after) in stored.iter().zip(&after) {
            assert_eq!(
                before["spec"], after["spec"],
                "a field was lost or a default changed"
            );
        }
        kubectl(&format!("annotate {KINDS} --all -n {NAMESPACE} edited=yes"))
            .context("an edit of metadata under the new schema")?;
        let whole = json!({"apiVersion": "v1", "kind": "List", "items": list()?}).to_string();
        kubectl_with(&["replace", "--validate=strict", "-f", "-"], &whole).context("a full update")?;
        note(&format!(
            "{}: {} stored objects stay good",
            released.name(),
            stored.len()
        ));
        kubectl(&format!("delete {KINDS} --all -n {NAMESPACE} --timeout=60s"))?;
        kubectl(&format!("delete namespace {NAMESPACE} --timeout=60s"))?;
        clear(&[])?;
    }
    Ok(())
}

/// Stores every object of the admission cases that the released schema takes, and the release's own examples.
fn store(released: &Bundle) -> anyhow::Result<Vec<Value>> {
    let examples = released.csv["metadata"]["annotations"]["alm-examples"]
        .as_str()
        .context("no examples")?;
    let examples: Vec<Value> = serde_json::from_str(examples)?;
    let candidates = cases::all()
        .into_iter()
        .flat_map(|case| case.old.into_iter().chain([case.write]));
    let ours = examples.into_iter().chain(candidates).filter(|object| {
        object["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("mcp.kuadrant.io/"))
    });
    let objects: Vec<String> = ours
        .enumerate()
        .map(|(index, object)| {
            let metadata = json!({"name": format!("object-{index}"), "namespace": NAMESPACE});
            json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "spec": object["spec"]})
                .to_string()
        })
        .collect();
    // Cases that the schema refuses are among them: what it takes is what counts.
    if let Err(refused) = kubectl_with(
        &["create", "--validate=ignore", "-f", "-"],
        &objects.join("\n---\n"),
    ) {
        ensure!(!format!("{refused:#}").contains("connection"), "{refused:#}");
    }
    let stored = list()?;
    ensure!(
        stored.len() >= ENOUGH,
        "only {} of {} were stored",
        stored.len(),
        objects.len()
    );
    Ok(stored)
}

fn list() -> anyhow::Result<Vec<Value>> {
    let listed = get(&format!("{KINDS} -n {NAMESPACE}"))?;
    listed["items"].as_array().cloned().context("no items")
}
