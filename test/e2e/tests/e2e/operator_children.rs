//! Children of an extension on a real API server: foreign objects, user patches, repairs, and no write that is not needed.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::time::Duration;

use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl, kubectl_with, next_second};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

/// Long enough for the operator to see a change and answer it.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits until `check` accepts the object that `line` names.
pub(crate) async fn until(line: &str, what: &str, check: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let object = eventually(SOON, what, async || {
        let object = get(line).map_err(|error| format!("{error:#}"))?;
        if check(&object) {
            Ok(object)
        } else {
            Err(object.to_string())
        }
    });
    Ok(object.await?)
}

/// How many Events of this reason are about objects of a namespace.
pub(crate) fn events(reason: &str, namespace: &str) -> anyhow::Result<usize> {
    let found = get(&format!(
        "events.events.k8s.io -n {namespace} --field-selector reason={reason}"
    ))?;
    Ok(found["items"].as_array().map_or(0, Vec::len))
}

/// Waits until an Event of this reason is there.
pub(crate) async fn told(reason: &str, namespace: &str) -> anyhow::Result<()> {
    let look = async || match events(reason, namespace) {
        Ok(0) => Err("no Event yet".to_owned()),
        other => other.map(drop).map_err(|error| format!("{error:#}")),
    };
    Ok(eventually(SOON, reason, look).await?)
}

pub(crate) async fn ready_site(name: &str) -> anyhow::Result<Site> {
    let site = Site::create(name)?;
    apply(&site.extension(name, "ext", "mcp", ""))?;
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    Ok(site)
}

pub(crate) fn patch(what: &str, kind: &str, patch: &Value) -> anyhow::Result<String> {
    let mut words = vec!["patch"];
    words.extend(what.split_whitespace());
    let patch = patch.to_string();
    words.extend(["--type", kind, "-p", &patch]);
    kubectl_with(&words, "")
}

#[tokio::test]
async fn t17_a_foreign_object_is_left_unchanged_and_named_until_it_goes() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("foreign")?;
    apply(
        "{apiVersion: v1, kind: Service, metadata: {name: mcp-gateway, namespace: foreign}, \
        spec: {selector: {app: mine}, ports: [{port: 80}]}}",
    )?;
    let before = get("service mcp-gateway -n foreign")?;
    apply(&site.extension("foreign", "ext", "mcp", ""))?;
    let message = site
        .wait_not_ready("mcpge/ext -n foreign", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict: Service foreign/mcp-gateway exists and is not controlled"),
        "{message}"
    );
    assert_eq!(get("service mcp-gateway -n foreign")?, before);
    delete("service mcp-gateway -n foreign")?;
    site.wait_ready("mcpge/ext -n foreign")
}

#[tokio::test]
async fn t26_a_converged_namespace_is_never_written_whatever_is_evaluated() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("still").await?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n still-servers")?;
    patch(
        "service mcp-gateway -n still",
        "merge",
        &json!({"spec": {"type": "NodePort"}}),
    )?;
    let mut quiet = Kit::from_env()?.audit_mark()?;
    eventually(
        Duration::from_secs(60),
        "five seconds without a write",
        async || {
            tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>())
                .await
                .ok();
            let writes = ours("still", quiet).map_err(|error| format!("{error:#}"))?;
            quiet = Kit::from_env()
                .and_then(|kit| kit.audit_mark())
                .map_err(|error| error.to_string())?;
            if writes.is_empty() {
                Ok(())
            } else {
                Err(writes.join(", "))
            }
        },
    )
    .await?;
    for turn in 0..10 {
        for what in [
            "mcpge/ext -n still",
            "mcpsr/one -n still-servers",
            "service/mcp-gateway -n still",
        ] {
            kubectl(&format!("annotate --overwrite {what} turn={turn}"))?;
        }
        tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>())
            .await
            .ok();
    }
    let writes = ours("still", quiet)?;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(
        get("service mcp-gateway -n still")?["spec"]["type"],
        "NodePort",
        "t25"
    );
    Ok(())
}

/// Writes of the operator since `mark` into the namespaces of a site.
fn ours(site: &str, mark: mcp_gateway_kit::AuditMark) -> anyhow::Result<Vec<String>> {
    let writes = Kit::from_env()?.writes_since(mark)?;
    let controller = writes
        .iter()
        .filter(|write| write.user.ends_with(":mcp-gateway-controller"));
    let here = controller.filter(|write| write.namespace.starts_with(site));
    Ok(here
        .map(|write| {
            format!(
                "{} {} {}/{}",
                write.verb, write.resource, write.namespace, write.name
            )
        })
        .collect())
}

#[tokio::test]
async fn t28_deleted_and_edited_children_are_restored() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("repair").await?;
    let filter = "envoyfilter mcp-ext-proc-repair-gateway -n repair-gw";
    let wanted = get(filter)?["spec"].clone();
    let edit = json!({
        "metadata": {"annotations": {"mine": "yes"}, "labels": {"also": "mine"}},
        "spec": {"priority": 1, "workloadSelector": {"labels": {"app": "else"}}},
    });
    patch(filter, "merge", &edit)?;
    let repaired = until(filter, "the EnvoyFilter to be repaired", |found| {
        found["spec"] == wanted
    })
    .await?;
    assert_eq!(repaired["metadata"]["annotations"]["mine"], "yes");
    assert_eq!(repaired["metadata"]["labels"]["also"], "mine");
    told("DriftReverted", "repair").await?;
    patch(
        "role mcp-gateway -n repair",
        "json",
        &json!([{"op": "remove", "path": "/rules"}]),
    )?;
    until("role mcp-gateway -n repair", "the Role's rules", |role| {
        !role["rules"].is_null()
    })
    .await?;
    for child in [
        "service",
        "serviceaccount",
        "role",
        "rolebinding",
        "networkpolicy",
        "deployment",
    ] {
        let line = format!("{child} mcp-gateway -n repair");
        let uid = get(&line)?["metadata"]["uid"].clone();
        delete(&line)?;
        until(&line, &format!("{child} to be restored"), |found| {
            found["metadata"]["uid"] != uid
        })
        .await?;
    }
    for line in [
        "httproute mcp-gateway-route -n repair",
        filter,
        "secret mcp-gateway-config -n repair",
    ] {
        delete(line)?;
        until(line, &format!("{line} to be restored"), |_| true).await?;
    }
    Ok(())
}

#[tokio::test]
async fn t33_unmanaged_routes_stay_and_are_managed_again() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("unmanaged").await?;
    let line = "httproute mcp-gateway-route -n unmanaged";
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"httpRouteManagement": "Disabled"}}),
    )?;
    until("mcpge ext -n unmanaged", "the change to be seen", |found| {
        found["status"]["conditions"][0]["observedGeneration"] == found["metadata"]["generation"]
    })
    .await?;
    patch(line, "merge", &json!({"spec": {"hostnames": ["other.example"]}}))?;
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"backendPingIntervalSeconds": 30}}),
    )?;
    until(
        "deployment mcp-gateway -n unmanaged",
        "another evaluation",
        |found| found.to_string().contains("--mcp-check-interval=30"),
    )
    .await?;
    assert_eq!(get(line)?["spec"]["hostnames"], json!(["other.example"]));
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"httpRouteManagement": "Enabled"}}),
    )?;
    until(line, "the route to be managed again", |route| {
        route["spec"]["hostnames"] == json!(["mcp.unmanaged.example"])
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t47_a_rolling_update_flips_no_condition() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("rolling").await?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n rolling-servers")?;
    // Times of transitions have whole seconds.
    next_second().await?;
    let since =
        |what: &str| -> anyhow::Result<Value> { Ok(ready_of(&get(what)?)["lastTransitionTime"].clone()) };
    let (extension, registration) = ("mcpge ext -n rolling", "mcpsr one -n rolling-servers");
    let before = [since(extension)?, since(registration)?];
    let rolled_out = async |what: &str, edit: Value| -> anyhow::Result<()> {
        patch(what, "merge", &json!({"spec": edit}))?;
        let look = async || {
            let found = get(what).map_err(|error| format!("{error:#}"))?;
            let ready = ready_of(&found);
            if ready["observedGeneration"] == found["metadata"]["generation"] {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        };
        Ok(eventually(Duration::from_secs(90), "the new generation to be Ready", look).await?)
    };
    rolled_out(registration, json!({"hint": "another config"})).await?;
    rolled_out(extension, json!({"backendPingIntervalSeconds": 31})).await?;
    assert_eq!(
        [since(extension)?, since(registration)?],
        before,
        "a condition turned"
    );
    Ok(())
}

/// The condition `Ready` of an object.
fn ready_of(object: &Value) -> Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut conditions = conditions.into_iter();
    conditions
        .find(|condition| condition["type"] == "Ready")
        .unwrap_or_default()
}

#[tokio::test]
async fn the_network_policy_goes_and_comes_with_its_field() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("policed").await?;
    let manage = |management: &str| {
        let spec = json!({"spec": {"networkPolicyManagement": management}});
        patch("mcpge ext -n policed", "merge", &spec)
    };
    let line = "networkpolicy mcp-gateway -n policed";
    let policy = get(line)?;
    assert_eq!(
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"],
        "mcp-gateway"
    );
    manage("Disabled")?;
    eventually(SOON, "the NetworkPolicy to go", async || match get(line) {
        Ok(found) => Err(found["metadata"].to_string()),
        Err(_) => Ok(()),
    })
    .await?;
    manage("Enabled")?;
    until(line, "the NetworkPolicy to come back", |_| true).await?;
    Ok(())
}

#[tokio::test]
async fn t55_finalizers_of_an_older_install_are_taken_off() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: finals}}")?;
    let object = |kind: &str, spec: &str| {
        apply(&format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: {kind}, spec: {{{spec}}}, \
            metadata: {{name: old, namespace: finals, finalizers: [mcp.kuadrant.io/finalizer, example.com/mine]}}}}"
        ))
    };
    object("MCPServerRegistration", "targetRef: {name: none}")?;
    object("MCPVirtualServer", "tools: [a]")?;
    object("MCPAuthPolicy", "targetRefs: [{name: none}]")?;
    for kind in ["mcpsr", "mcpvs", "mcpap"] {
        let line = format!("{kind} old -n finals");
        until(&line, "our finalizer to be off", |found| {
            found["metadata"]["finalizers"] == json!(["example.com/mine"])
        })
        .await?;
        patch(&line, "merge", &json!({"metadata": {"finalizers": null}}))?;
        delete(&line)?;
    }
    Ok(())
}
