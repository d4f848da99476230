//! Admission away: what reconcile makes of objects that nobody judged, and what must go on without the webhook
//! (operator.md 3, 4.4, T59, T61).

use std::time::Duration;

use anyhow::ensure;
use mcp_gateway_e2e::{
    Cluster, OPERATOR_NAMESPACE, Site, apply, delete, get, kubectl, next_second, refused, with_admission,
    without_admission,
};
use mcp_gateway_kit::eventually;

use crate::{
    operator_config::document,
    operator_rivals::{filters_are, programmed_is},
};

const SOON: Duration = Duration::from_secs(30);

/// Stores objects that admission would refuse.
async fn store_unjudged(manifests: &[String]) -> anyhow::Result<()> {
    without_admission()?;
    for manifest in manifests {
        let attempt = async || apply(manifest).map(drop).map_err(|error| format!("{error:#}"));
        eventually(SOON, "an unjudged write", attempt).await?;
    }
    with_admission()
}

/// Waits until the config document of a namespace holds the server, or until it does not.
async fn serves(namespace: &str, server: &str, wanted: bool) -> anyhow::Result<()> {
    let look = async || {
        let document = document(namespace).map_err(|error| format!("{error:#}"))?;
        if document.contains(&format!("- name: {server}\n")) == wanted {
            Ok(())
        } else {
            Err(document)
        }
    };
    Ok(eventually(SOON, "the config document", look).await?)
}

/// The operator puts the configurations back, and admission refuses again what it could not see.
async fn admission_is_back(site: &Site) -> anyhow::Result<()> {
    let back = async || match refused(&site.extension("unjudged-servers", "fourth", "mcp", "")) {
        Ok(text) if text.contains("denied the request") => Ok(()),
        Ok(text) => Err(text),
        Err(error) => {
            delete("mcpge fourth -n unjudged-servers").map_err(|error| format!("{error:#}"))?;
            Err(format!("{error:#}"))
        }
    };
    Ok(eventually(Duration::from_secs(90), "admission to be back", back).await?)
}

#[tokio::test]
async fn t59_without_admission_the_oldest_stays_and_the_losers_come_back_when_it_goes() -> anyhow::Result<()>
{
    let _cluster = Cluster::alone().await?;
    let (site, other) = (Site::create("unjudged")?, Site::create("unjudged2")?);
    site.grant("unjudged2")?;
    other.grant("unjudged")?;
    site.server("weather")?;
    site.register("weather", "weather_")?;
    apply(&site.extension("unjudged", "first", "mcp", ""))?;
    site.wait_ready("mcpge/first -n unjudged")?;
    next_second().await?;
    apply(&other.extension("unjudged2", "second", "mcp", ""))?;
    site.wait_ready("mcpge/second -n unjudged2")?;
    site.wait_ready("mcpsr/weather -n unjudged-servers")?;
    filters_are("unjudged2-gw", &["mcp-ext-proc-unjudged2-gateway"]).await?;

    // One that was Ready elsewhere moves onto a Gateway that is taken, and one is made in a namespace that is taken.
    store_unjudged(&[
        site.extension("unjudged2", "second", "mcp", ""),
        other.extension("unjudged", "third", "mcp", ""),
    ])
    .await?;
    for (loser, says) in [
        (
            "mcpge/second -n unjudged2",
            "gateway unjudged-gw/gw already has MCPGatewayExtension unjudged/first",
        ),
        (
            "mcpge/third -n unjudged",
            "namespace unjudged already has MCPGatewayExtension unjudged/first",
        ),
    ] {
        let message = site.wait_not_ready(loser, "InvalidMCPGatewayExtension").await?;
        ensure!(
            message.contains("conflict") && message.contains(says),
            "{message}"
        );
    }
    site.wait_ready("mcpge/first -n unjudged")?;
    filters_are("unjudged-gw", &["mcp-ext-proc-unjudged-gateway"]).await?;
    filters_are("unjudged2-gw", &[]).await?;
    programmed_is("unjudged2", &[]).await?;
    serves("unjudged", "unjudged-servers/weather", true).await?;
    serves("unjudged2", "unjudged-servers/weather", false).await?;
    ensure!(
        get("httproute mcp-gateway-route -n unjudged2").is_err(),
        "the loser keeps its route"
    );

    admission_is_back(&site).await?;

    delete("mcpge first -n unjudged")?;
    site.wait_ready("mcpge/second -n unjudged2")?;
    site.wait_ready("mcpge/third -n unjudged")?;
    filters_are("unjudged-gw", &["mcp-ext-proc-unjudged2-gateway"]).await?;
    filters_are("unjudged2-gw", &["mcp-ext-proc-unjudged-gateway"]).await?;
    serves("unjudged2", "unjudged-servers/weather", true).await?;
    site.wait_ready("mcpsr/weather -n unjudged-servers")?;
    delete("mcpge second -n unjudged2")?;
    delete("mcpge third -n unjudged")?;
    Ok(())
}

#[tokio::test]
async fn t61_an_extension_is_deleted_and_labelled_while_no_webhook_runs() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("nobody")?;
    apply(&site.extension("nobody", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n nobody")?;
    let scale = |replicas: u8| {
        kubectl(&format!(
            "scale deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --replicas={replicas}"
        ))
    };
    scale(0)?;
    let outcome = async {
        let retarget = r#"{"spec":{"targetRef":{"sectionName":"other"}}}"#;
        let patch = format!("patch mcpge ext -n nobody --dry-run=server --type=merge -p {retarget}");
        eventually(
            Duration::from_secs(60),
            "changes to be refused",
            async || match kubectl(&patch) {
                Err(error) if error.to_string().contains("failed calling webhook") => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await?;
        kubectl("label mcpge ext -n nobody team=a")?;
        kubectl("annotate mcpge ext -n nobody note=b")?;
        let finalizers = get("mcpge ext -n nobody")?["metadata"]["finalizers"].clone();
        ensure!(
            finalizers[0] == "mcp.kuadrant.io/finalizer",
            "nothing to remove: {finalizers}"
        );
        delete("mcpge ext -n nobody")?;
        filters_are("nobody-gw", &[]).await
    };
    let outcome = outcome.await;
    scale(2)?;
    outcome?;
    kubectl(&format!(
        "rollout status deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --timeout=60s"
    ))
    .map(drop)
}
