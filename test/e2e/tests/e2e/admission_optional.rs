//! Webhook configurations beyond the standard two: advice on what others own, and the supplementary ones of OLM installs.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_api::webhooks::supplementary;
use mcp_gateway_e2e::{
    Cluster, OPERATOR_NAMESPACE, Site, apply, delete, get, kubectl, refused, with_admission,
    without_admission,
};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

fn apply_folder(folder: &str) -> anyhow::Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    kubectl(&format!("apply -k {root}/{folder}"))?;
    kubectl(&format!(
        "rollout status deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --timeout=90s"
    ))
    .map(drop)
}

/// Waits until a dry-run deletion of `line` warns of `text` (or, without one, of nothing) and is allowed.
async fn deletion_warns(line: &str, text: Option<&str>) -> anyhow::Result<()> {
    let look = async || {
        let printed = mcp_gateway_e2e::delete_dry(line).map_err(|error| format!("{error:#}"))?;
        let warned = printed
            .iter()
            .any(|warning| warning.contains(text.unwrap_or("MCPGatewayExtension")));
        if warned == text.is_some() {
            Ok(())
        } else {
            Err(format!("{printed:?}"))
        }
    };
    Ok(eventually(SOON, "the advice", look).await?)
}

#[tokio::test]
async fn deleting_a_gateway_or_grant_in_use_is_warned_about_and_goes_through() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("advice")?;
    apply(&site.extension("advice", "ext", "mcp", ""))?;
    deletion_warns("gateway gw -n advice-gw", None).await?;
    apply_folder("test/e2e/overlays/advisory")?;
    let outcome = async {
        deletion_warns(
            "gateway gw -n advice-gw",
            Some("MCPGatewayExtension advice/ext stops serving"),
        )
        .await?;
        deletion_warns(
            "referencegrant allow-advice -n advice-gw",
            Some("MCPGatewayExtension advice/ext loses its Gateway"),
        )
        .await?;
        site.grant("elsewhere")?;
        deletion_warns("referencegrant allow-elsewhere -n advice-gw", None).await?;
        let configuration = get("validatingwebhookconfiguration mcp-gateway-webhook-advisory")?;
        ensure!(
            configuration["webhooks"][0]["failurePolicy"] == "Ignore",
            "{configuration}"
        );
        delete("gateway gw -n advice-gw")?;
        delete("mcpge ext -n advice").map(drop)
    };
    let outcome = outcome.await;
    delete("validatingwebhookconfiguration mcp-gateway-webhook-advisory")?;
    apply_folder("config/install")?;
    outcome
}

/// An object as OLM makes it for one definition of the CSV, for a group that selects `namespace`.
fn made_by_olm(standard: &Value, webhook: &str, uid: &str) -> anyhow::Result<Value> {
    let mut webhook = standard["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|found| found["name"] == webhook)
        .cloned()
        .context("no such webhook")?;
    let name = webhook["name"].as_str().unwrap_or_default().to_owned();
    webhook["failurePolicy"] = json!("Ignore");
    webhook["namespaceSelector"] = json!({"matchLabels": {format!("olm.operatorgroup.uid/{uid}"): ""}});
    if let Some(members) = webhook.as_object_mut() {
        members.remove("matchConditions");
    }
    Ok(
        json!({"apiVersion": standard["apiVersion"], "kind": standard["kind"],
        "metadata": {"name": format!("{name}-{uid}"), "labels": {"olm.owner": "mcp-gateway.v0.1.0", "olm.owner.namespace": OPERATOR_NAMESPACE,
            "olm.owner.kind": "ClusterServiceVersion", "olm.webhook-description-generate-name": name}},
        "webhooks": [webhook]}),
    )
}

/// What OLM makes for the definitions of a CSV.
struct Olm {
    validating: Value,
    mutating: Value,
}

impl Olm {
    fn objects(&self, uid: &str) -> anyhow::Result<[Value; 3]> {
        Ok([
            made_by_olm(&self.validating, "exclusivity.mcp.kuadrant.io", uid)?,
            made_by_olm(&self.validating, "changes.exclusivity.mcp.kuadrant.io", uid)?,
            made_by_olm(&self.mutating, "defaults.mcp.kuadrant.io", uid)?,
        ])
    }

    fn install(&self, uid: &str) -> anyhow::Result<()> {
        self.objects(uid)?
            .iter()
            .try_for_each(|object| apply(&object.to_string()).map(drop))
    }

    fn uninstall(&self, uid: &str) -> anyhow::Result<()> {
        self.objects(uid)?.iter().try_for_each(|object| {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            delete(&format!("{} {}", text("/kind"), text("/metadata/name"))).map(drop)
        })
    }
}

fn supplementary_of(kind: &str) -> Result<Value, String> {
    get(&format!("{kind} {}", supplementary::NAME)).map_err(|error| format!("{error:#}"))
}

/// Waits until both supplementary objects leave out the namespaces of the group `uid`.
async fn supplementary_to(uid: &str) -> anyhow::Result<()> {
    let wanted = json!([{"key": format!("olm.operatorgroup.uid/{uid}"), "operator": "DoesNotExist"}]);
    let look = async || {
        for (kind, webhook) in [
            ("validatingwebhookconfiguration", "exclusivity.mcp.kuadrant.io"),
            ("mutatingwebhookconfiguration", "defaults.mcp.kuadrant.io"),
        ] {
            let object = supplementary_of(kind)?;
            let webhooks = object["webhooks"].as_array().cloned().unwrap_or_default();
            let ours = webhooks.iter().find(|one| one["name"] == webhook);
            if ours.is_none_or(|ours| ours["namespaceSelector"]["matchExpressions"] != wanted) {
                return Err(object.to_string());
            }
        }
        Ok(())
    };
    Ok(eventually(SOON, "the supplementary objects", look).await?)
}

/// Only the supplementary objects are left, and a second extension of a namespace outside the group is refused.
fn refused_outside_the_group() -> anyhow::Result<()> {
    let extension = |name: &str| {
        format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {{name: {name}, namespace: supplied}}, \
            spec: {{targetRef: {{name: gw, sectionName: mcp}}}}}}"
        )
    };
    without_admission()?;
    apply(&extension("first"))?;
    let text = refused(&extension("second"))?;
    ensure!(
        text.contains("namespace supplied already has MCPGatewayExtension supplied/first"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn o4_o12_supplementary_configurations_follow_what_olm_makes_and_go_with_it() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: supplied}}")?;
    let olm = Olm {
        validating: get("validatingwebhookconfiguration mcp-gateway-webhook")?,
        mutating: get("mutatingwebhookconfiguration mcp-gateway-webhook")?,
    };
    olm.install("seven")?;
    supplementary_to("seven").await?;
    let settled = supplementary_of("validatingwebhookconfiguration").map_err(anyhow::Error::msg)?;

    let outcome = refused_outside_the_group();
    with_admission()?;
    outcome?;
    let later = supplementary_of("validatingwebhookconfiguration").map_err(anyhow::Error::msg)?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    ensure!(version(&settled) == version(&later), "written again: {later}");

    // A newer object of an upgrade gives the content; when all are gone, so are ours.
    olm.install("eight")?;
    supplementary_to("eight").await?;
    olm.uninstall("seven")?;
    olm.uninstall("eight")?;
    eventually(SOON, "the supplementary objects to go", async || {
        match (
            supplementary_of("validatingwebhookconfiguration"),
            supplementary_of("mutatingwebhookconfiguration"),
        ) {
            (Err(_), Err(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    delete("mcpge first -n supplied")?;
    // The operator puts back what this test deleted.
    eventually(
        Duration::from_secs(90),
        "the standard configurations",
        async || {
            get("validatingwebhookconfiguration mcp-gateway-webhook")
                .and_then(|_| get("mutatingwebhookconfiguration mcp-gateway-webhook"))
                .map(drop)
                .map_err(|error| format!("{error:#}"))
        },
    )
    .await?;
    Ok(())
}
