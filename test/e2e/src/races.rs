//! Fifty creates of extensions at once, of which exactly one may be admitted (T56), on whatever installation there is.

use anyhow::{Context, ensure};
use futures::future::join_all;
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use mcp_gateway_api::extension::MCPGatewayExtension;
use serde_json::json;

use crate::kubectl::{apply, delete};

/// Creates of one round.
const RIVALS: usize = 50;

/// Extension `<namespace>/<name>` for a Gateway (namespace, name) that need not exist.
///
/// # Errors
/// Never for names that Kubernetes takes.
pub fn extension(namespace: &str, name: &str, gateway: (&str, &str)) -> anyhow::Result<MCPGatewayExtension> {
    let object = json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"targetRef": {"namespace": gateway.0, "name": gateway.1, "sectionName": "mcp"}}});
    serde_json::from_value(object).context("an extension")
}

/// Makes namespaces.
///
/// # Errors
/// When the API server refuses one.
pub fn namespaces(names: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let manifests: Vec<String> = names
        .map(|name| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"))
        .collect();
    apply(&manifests.join("\n---\n")).map(drop)
}

/// Sends all at once; gives back what was admitted.
///
/// # Errors
/// When one is refused for another reason than a conflict.
pub async fn admitted(client: &Client, all: Vec<MCPGatewayExtension>) -> anyhow::Result<Vec<ObjectMeta>> {
    let creates = all.into_iter().map(|extension| {
        let namespace = extension.metadata.namespace.clone().unwrap_or_default();
        let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), &namespace);
        async move { api.create(&PostParams::default(), &extension).await }
    });
    let mut admitted = Vec::new();
    for outcome in join_all(creates).await {
        match outcome {
            Ok(object) => admitted.push(object.metadata),
            Err(kube::Error::Api(status)) if status.message.contains("conflict") => {}
            Err(error) => anyhow::bail!("refused for another reason: {error}"),
        }
    }
    Ok(admitted)
}

/// How many stored extensions name this Gateway.
///
/// # Errors
/// When they cannot be listed.
pub async fn stored_for(client: &Client, gateway: &str) -> anyhow::Result<usize> {
    let all = Api::<MCPGatewayExtension>::all(client.clone())
        .list(&ListParams::default())
        .await?;
    Ok(all
        .iter()
        .filter(|extension| extension.spec.target_ref.name == gateway)
        .count())
}

/// Rounds of fifty creates in one namespace each, `race-<round>`, for different Gateways. The namespaces stay.
///
/// # Errors
/// When a round does not end with exactly one.
pub async fn one_in_a_namespace(client: &Client, rounds: usize) -> anyhow::Result<()> {
    namespaces((0..rounds).map(|round| format!("race-{round}")))?;
    for round in 0..rounds {
        let namespace = format!("race-{round}");
        let rival = |n| {
            extension(
                &namespace,
                &format!("e{n}"),
                ("race-gw", &format!("gw-{round}-{n}")),
            )
        };
        let all: anyhow::Result<Vec<_>> = (0..RIVALS).map(rival).collect();
        let admitted = admitted(client, all?).await?.len();
        let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), &namespace);
        let stored = api.list(&ListParams::default()).await?.items.len();
        ensure!(
            (admitted, stored) == (1, 1),
            "round {round}: {admitted} admitted, {stored} stored"
        );
    }
    Ok(())
}

/// Namespaces `rival-<n>` of [`one_for_a_gateway`].
pub fn rivals() -> impl Iterator<Item = String> {
    (0..RIVALS).map(|n| format!("rival-{n}"))
}

/// Rounds of fifty creates for one Gateway, each in a namespace of its own, which is there.
///
/// # Errors
/// When a round does not end with exactly one.
pub async fn one_for_a_gateway(client: &Client, rounds: usize) -> anyhow::Result<()> {
    for round in 0..rounds {
        let gateway = format!("rival-gw-{round}");
        let all: anyhow::Result<Vec<_>> = rivals()
            .map(|namespace| extension(&namespace, "e", ("rival-gw", &gateway)))
            .collect();
        let winners = admitted(client, all?).await?;
        let stored = stored_for(client, &gateway).await?;
        ensure!(
            (winners.len(), stored) == (1, 1),
            "round {round}: {} admitted, {stored} stored",
            winners.len()
        );
        for winner in winners {
            let (namespace, name) = (
                winner.namespace.unwrap_or_default(),
                winner.name.unwrap_or_default(),
            );
            delete(&format!("mcpge {name} -n {namespace}"))?;
        }
    }
    Ok(())
}
