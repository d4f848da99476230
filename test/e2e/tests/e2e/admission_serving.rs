//! The webhook as a service: a rollout refuses nobody, and its absence stops only what must not pass unjudged.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Context;
use kube::{Api, api::PostParams};
use mcp_gateway_api::{extension::MCPGatewayExtension, webhooks};
use mcp_gateway_e2e::{Cluster, OPERATOR_NAMESPACE, apply, delete, get, kubectl, refused};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

/// Dry-run creates, one after the other, until `stop`; gives back how many were answered.
async fn knock(
    api: &Api<MCPGatewayExtension>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> anyhow::Result<()> {
    let extension: MCPGatewayExtension = serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"name": "e", "namespace": "rollout"}, "spec": {"targetRef": {"name": "gw", "sectionName": "mcp"}}}))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    while !stop.load(Ordering::Relaxed) {
        api.create(&params, &extension)
            .await
            .context("a create was not answered")?;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_of_the_webhook_refuses_nobody() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: rollout}}")?;
    let client = Kit::from_env()?.client().await?;
    let api: Api<MCPGatewayExtension> = Api::namespaced(client, "rollout");
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rollout = async {
        let rolled = tokio::task::spawn_blocking(|| {
            let deployment = format!("deployment/mcp-gateway-webhook -n {OPERATOR_NAMESPACE}");
            kubectl(&format!("rollout restart {deployment}"))?;
            kubectl(&format!("rollout status {deployment} --timeout=120s"))
        });
        let outcome = rolled.await;
        // The old pods are still on their way out when the rollout is complete.
        let gone = eventually(Duration::from_secs(60), "the old pods to be gone", async || {
            let pods = get(&format!(
                "pods -n {OPERATOR_NAMESPACE} -l app.kubernetes.io/name=mcp-gateway-webhook"
            ))
            .map_err(|error| format!("{error:#}"))?;
            let count = pods["items"].as_array().map_or(0, Vec::len);
            if count == 2 {
                Ok(())
            } else {
                Err(format!("{count} pods"))
            }
        });
        let gone = gone.await;
        stop.store(true, Ordering::Relaxed);
        outcome??;
        gone?;
        anyhow::Ok(())
    };
    let (rolled, knocked) = futures::join!(rollout, knock(&api, &stop, &answered));
    rolled?;
    knocked?;
    assert!(answered.load(Ordering::Relaxed) > 20, "{answered:?}");
    Ok(())
}

/// Certificate of the serving pair, its authority, and what is trusted beside it, as the Secret and both configurations
/// say; an error while they do not agree.
fn trusted() -> Result<(String, String), String> {
    let said = |what: &str| get(what).map_err(|error| format!("{error:#}"));
    let secret = said(&format!(
        "secret {} -n {OPERATOR_NAMESPACE}",
        webhooks::CERT_SECRET
    ))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (certificate, authority) = (text(&secret["data"]["tls.crt"]), text(&secret["data"]["ca.crt"]));
    if !secret["data"]["former-ca.crt"].is_null() {
        return Err("the former authority is still trusted".to_owned());
    }
    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
        let configuration = said(&format!("{kind} {}", webhooks::NAME))?;
        if text(&configuration["webhooks"][0]["clientConfig"]["caBundle"]) != authority {
            return Err(format!("{kind} trusts another authority"));
        }
    }
    Ok((certificate, authority))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o3_a_rotation_of_the_managed_certificate_refuses_nobody() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: rollout}}")?;
    let client = Kit::from_env()?.client().await?;
    let api: Api<MCPGatewayExtension> = Api::namespaced(client, "rollout");
    let patience = Duration::from_secs(60);
    let before = eventually(patience, "a settled certificate", async || trusted()).await?;
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rotation = async {
        let rotated = async || match trusted()? {
            now if now.0 != before.0 && now.1 != before.1 => Ok(()),
            _ => Err("the former pair".to_owned()),
        };
        let deleted = delete(&format!(
            "secret {} -n {OPERATOR_NAMESPACE}",
            webhooks::CERT_SECRET
        ));
        let rotated = eventually(patience, "another pair, alone trusted", rotated).await;
        stop.store(true, Ordering::Relaxed);
        deleted?;
        anyhow::Ok(rotated?)
    };
    let (rotated, knocked) = futures::join!(rotation, knock(&api, &stop, &answered));
    rotated?;
    knocked?;
    assert!(answered.load(Ordering::Relaxed) > 20, "{answered:?}");
    Ok(())
}

#[tokio::test]
async fn o11_t61_without_the_webhook_extensions_wait_and_everything_else_goes_on() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: away}}")?;
    let extension = |name: &str| {
        format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {{name: {name}, namespace: away}}, \
            spec: {{targetRef: {{name: gw, sectionName: mcp}}}}}}"
        )
    };
    apply(&extension("first"))?;
    let scale = |replicas: u8| {
        kubectl(&format!(
            "scale deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --replicas={replicas}"
        ))
    };
    scale(0)?;
    eventually(
        Duration::from_secs(60),
        "creates to be refused",
        async || match refused(&extension("second")) {
            Ok(text) if text.contains("failed calling webhook") => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(format!("{error:#}")),
        },
    )
    .await?;
    // Other kinds go in, status is written, and what carries no finalizer of ours is deleted at once.
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPVirtualServer, metadata: {name: v, namespace: away}, spec: {tools: [a]}}",
    )?;
    eventually(Duration::from_secs(30), "a status", async || {
        let server = get("mcpvs v -n away").map_err(|error| format!("{error:#}"))?;
        server["status"]["conditions"][0]["type"]
            .as_str()
            .map(drop)
            .ok_or_else(|| server.to_string())
    })
    .await?;
    let deleted = delete("mcpge first -n away");
    scale(2)?;
    deleted?;
    eventually(Duration::from_secs(60), "creates to pass again", async || {
        apply(&extension("second"))
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    })
    .await?;
    delete("mcpge second -n away")?;
    Ok(())
}
