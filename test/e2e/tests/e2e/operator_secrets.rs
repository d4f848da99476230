//! Secrets of an extension on a real API server: generated keys, those that a spec names, and what their edits cause.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl};
use serde_json::json;

use crate::operator_children::{ready_site, until};

#[tokio::test]
async fn t31_deleting_the_signing_key_gives_one_new_key_and_one_rollout() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("signing").await?;
    let line = "secret mcp-gateway-session-signing-key -n signing";
    let old = get(line)?["data"]["key"].clone();
    let generation = get("deployment mcp-gateway -n signing")?["metadata"]["generation"].clone();
    delete(line)?;
    let new = until(line, "a new key", |secret| secret["data"]["key"] != old).await?;
    assert_eq!(
        new["data"]["key"].as_str().map(str::len),
        Some(88),
        "64 hex digits in base64"
    );
    let rolled = until("deployment mcp-gateway -n signing", "a rollout", |found| {
        found["metadata"]["generation"] != generation
    });
    let rolled = rolled.await?["metadata"]["generation"].as_i64();
    assert_eq!(rolled, generation.as_i64().map(|generation| generation + 1));
    kubectl("rollout status deployment/mcp-gateway -n signing --timeout=90s")?;
    site.wait_ready("mcpge/ext -n signing")?;
    assert_eq!(get(line)?["data"], new["data"]);
    assert_eq!(
        get("deployment mcp-gateway -n signing")?["metadata"]["generation"].as_i64(),
        rolled
    );
    Ok(())
}

#[tokio::test]
async fn t29_a_users_secret_is_never_changed_by_key_generation() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("pair")?;
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: trusted, namespace: pair}, stringData: {key: mine}}",
    )?;
    let before = get("secret trusted -n pair")?;
    let more = "trustedHeadersKey: {secretName: trusted, generate: Enabled}";
    apply(&site.extension("pair", "ext", "mcp", more))?;
    let message = site
        .wait_not_ready("mcpge/ext -n pair", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict: Secret pair/trusted exists"),
        "{message}"
    );
    assert_eq!(get("secret trusted -n pair")?, before);
    delete("secret trusted -n pair")?;
    site.wait_ready("mcpge/ext -n pair")?;
    let public = get("secret trusted -n pair")?;
    delete("secret trusted -n pair")?;
    let again = until("secret trusted -n pair", "the public half", |_| true).await?;
    assert_eq!(
        again["data"], public["data"],
        "derived again from the private half"
    );
    Ok(())
}

/// Two public keys on P-256.
const PUBLIC_KEYS: [&str; 2] = [
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJdqnMnB+iPMbv9iqhvZT0l5jBStn\nsSbD6y7RkU9AtXqbfiYKv9wQiLrqU23U22YYoPwHuqEBoDk2ghNMpCNaCA==\n-----END PUBLIC KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4xz9uhYJWB4uZqscAcAsg16Sum28\nM3mHLlue36CZSukly4w8YZNWPcFsLvlmmGP3Lb3kpledBsS5iMR3G4ahfg==\n-----END PUBLIC KEY-----\n",
];

#[tokio::test]
async fn t30_a_named_secret_is_waited_for_and_an_edit_rolls_the_pods_once() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("named")?;
    apply(&site.extension("named", "ext", "mcp", "trustedHeadersKey: {secretName: trusted}"))?;
    let message = site
        .wait_not_ready("mcpge/ext -n named", "SecretNotFound")
        .await?;
    assert!(
        message.contains("secret named/trusted not found (spec.trustedHeadersKey.secretName)"),
        "{message}"
    );
    let secret = |key: &str| {
        let data = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trusted", "namespace": "named"},
            "stringData": {"key": key}});
        apply(&data.to_string())
    };
    secret(PUBLIC_KEYS[0])?;
    site.wait_ready("mcpge/ext -n named")?;
    let generation = get("deployment mcp-gateway -n named")?["metadata"]["generation"].as_i64();
    secret(PUBLIC_KEYS[1])?;
    let rolled = until("deployment mcp-gateway -n named", "a rollout", |found| {
        found["metadata"]["generation"].as_i64() != generation
    });
    assert_eq!(
        rolled.await?["metadata"]["generation"].as_i64(),
        generation.map(|generation| generation + 1)
    );
    delete("secret trusted -n named")?;
    site.wait_not_ready("mcpge/ext -n named", "SecretNotFound")
        .await?;
    assert!(
        get("envoyfilter mcp-ext-proc-named-gateway -n named-gw").is_ok(),
        "what runs is not removed"
    );
    Ok(())
}
