//! The chart: the one command of the install guide on an empty cluster, twice; uninstall with objects present; reinstall.

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Site, apply, get, kubectl, kubectl_with};
use mcp_gateway_kit::{Kit, eventually};
use mcp_gateway_ship::{
    chart::Rendered,
    combinations::EVERY,
    helm::{Helm, root},
};
use serde_json::json;

use crate::{
    CLUSTER,
    cluster::{brokers, clear, nothing_forbidden, prepare, program},
};

#[tokio::test]
async fn t55_what_helm_4_installs_works_and_its_uninstall_blocks_nothing() -> anyhow::Result<()> {
    life(Helm::V4, "four").await
}

#[tokio::test]
async fn t55_what_helm_3_installs_works_and_its_uninstall_blocks_nothing() -> anyhow::Result<()> {
    life(Helm::V3, "three").await
}

/// `helm upgrade -i` of the guide, with more values behind it.
fn install(helm: Helm, values: &[&str]) -> anyhow::Result<String> {
    let mut arguments = vec![
        "upgrade",
        "-i",
        "mcp-gateway",
        "charts/mcp-gateway",
        "--namespace",
        "mcp-system",
        "--create-namespace",
    ];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    helm.output(&arguments)
}

async fn life(helm: Helm, name: &str) -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    let other = format!("{name}-other");
    let site = Site::create(name)?;
    let host = format!("gateway.publicHost={}", site.host());
    let gateway = format!("mcpGatewayExtension.gatewayRef.namespace={name}-gw");
    let values = [
        "controller.enabled=true",
        &host,
        "mcpGatewayExtension.create=true",
        "mcpGatewayExtension.gatewayRef.name=gw",
        &gateway,
    ];
    let mark = Kit::from_env()?.audit_mark()?;
    install(helm, &values)?;
    // The next one comes while the operator is about to switch admission on.
    let notes = install(helm, &values)?;
    ensure!(
        notes.contains("mcpgatewayextension/mcp-gateway -n mcp-system"),
        "{notes}"
    );
    site.wait_ready("mcpge/mcp-gateway -n mcp-system")?;
    call(&site, "weather").await?;

    // What NOTES says about CRDs before an upgrade: Helm's own writes do not stand in the way.
    ensure!(
        notes.contains("kubectl apply --server-side --force-conflicts -k config/crd"),
        "{notes}"
    );
    let crds = root().join("config/crd");
    kubectl(&format!(
        "apply --server-side --force-conflicts -k {}",
        crds.display()
    ))?;
    combinations(helm, name)?;
    let team = Site::create(&other)?;
    apply(&team.extension(&other, "ext", "mcp", ""))?;
    team.wait_ready(&format!("mcpge/ext -n {other}"))?;
    call(&team, "weather").await?;
    let before = brokers(&other)?;
    rolled_back(helm, &values)?;
    nothing_forbidden(mark)?;

    let released = helm.output(&["uninstall", "mcp-gateway", "-n", "mcp-system", "--wait"])?;
    ensure!(released.contains("uninstalled"), "{released}");
    gone(name).await?;
    again(&team).await?;
    kubectl(&format!("annotate mcpge/ext -n {other} edited=yes"))?;

    install(helm, &["mcpGatewayExtension.create=false"])?;
    adopted(&other).await?;
    assert_eq!(
        brokers(&other)?,
        before,
        "a reinstall must not restart what serves"
    );
    again(&team).await?;

    without_hooks(helm, &other).await?;
    clear(&[name, &other])
}

/// The way back of the guide to upgrades: the values of the release before are in force again.
fn rolled_back(helm: Helm, values: &[&str]) -> anyhow::Result<()> {
    let mut more = values.to_vec();
    more.push("broker.pollInterval=45");
    let interval =
        || anyhow::Ok(get("mcpge mcp-gateway -n mcp-system")?["spec"]["backendPingIntervalSeconds"].clone());
    install(helm, &more)?;
    assert_eq!(interval()?, 45);
    helm.output(&["rollback", "mcp-gateway", "-n", "mcp-system"])?;
    assert_eq!(interval()?, 60);
    Ok(())
}

/// An uninstall without hooks leaves no admission behind that would refuse everything; `mcpgw uninstall` does the rest.
async fn without_hooks(helm: Helm, namespace: &str) -> anyhow::Result<()> {
    let words = [
        "uninstall",
        "mcp-gateway",
        "-n",
        "mcp-system",
        "--wait",
        "--no-hooks",
    ];
    helm.output(&words)?;
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
    eventually(
        Duration::from_secs(60),
        "admission to go with the release",
        async || {
            let found = kubectl(&format!("get {kinds} -o name")).map_err(|error| format!("{error:#}"))?;
            if found.contains("mcp") { Err(found) } else { Ok(()) }
        },
    )
    .await?;
    kubectl(&format!(
        "annotate --overwrite mcpge/ext -n {namespace} edited=again"
    ))?;
    let released = Command::new(program())
        .args(["uninstall", "--namespace", "mcp-system"])
        .output()?;
    ensure!(
        released.status.success(),
        "{}",
        String::from_utf8_lossy(&released.stderr)
    );
    Ok(())
}

/// The API server takes what each combination of values renders in a namespace that has no extension yet, with strict
/// validation and admission.
fn combinations(helm: Helm, name: &str) -> anyhow::Result<()> {
    let namespace = format!("{name}-gw");
    let gateways = [
        format!("gateway.namespace={namespace}"),
        format!("mcpGatewayExtension.gatewayRef.namespace={namespace}"),
    ];
    for values in EVERY {
        let values: Vec<&str> = values
            .iter()
            .copied()
            .chain(gateways.iter().map(String::as_str))
            .collect();
        let release = Rendered::new(helm, "mcp-gateway", name, &values)?;
        // cert-manager's own kinds are not in this cluster.
        let ours = release
            .objects()
            .iter()
            .filter(|object| object["apiVersion"] != "cert-manager.io/v1");
        let text: Vec<String> = ours.map(ToString::to_string).collect();
        let flags = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ];
        let applied = kubectl_with(&flags, &text.join("\n---\n"));
        applied.with_context(|| format!("{values:?}"))?;
    }
    Ok(())
}

/// A server behind the site's gateway, and a call of its tool through Envoy.
async fn call(site: &Site, server: &str) -> anyhow::Result<()> {
    site.server(server)?;
    site.register(server, "w_")?;
    site.wait_ready(&format!("mcpsr/{server} -n {}-servers", site.name()))?;
    again(site).await
}

async fn again(site: &Site) -> anyhow::Result<()> {
    let mut client = site.client().await?;
    client.initialize().await?;
    let result = client.call("w_add", json!({"a": 19, "b": 23})).await?;
    assert_eq!(result["content"][0]["text"], "42", "{result}");
    Ok(())
}

/// Nothing of the release is left that could block: no extension, no filter, no webhook.
async fn gone(name: &str) -> anyhow::Result<()> {
    let left = format!(
        "mcpge -n mcp-system; envoyfilter -n {name}-gw; validatingwebhookconfigurations mutatingwebhookconfigurations"
    );
    eventually(Duration::from_secs(60), "the release to be gone", async || {
        let mut found = String::new();
        for what in left.split("; ") {
            let what = what.replace(" mutating", ",mutating");
            found += &kubectl(&format!("get {what} -o name")).map_err(|error| format!("{error:#}"))?;
        }
        let ours = found
            .lines()
            .filter(|line| line.contains("mcp"))
            .collect::<Vec<_>>()
            .join(", ");
        if ours.is_empty() { Ok(()) } else { Err(ours) }
    })
    .await?;
    Ok(())
}

/// The new operator works: the finalizer is back on the extension that it found.
async fn adopted(namespace: &str) -> anyhow::Result<()> {
    let line = format!("mcpge ext -n {namespace}");
    eventually(
        Duration::from_secs(120),
        "the operator to take over",
        async || {
            let extension = get(&line).map_err(|error| format!("{error:#}"))?;
            let held = extension["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|finalizers| !finalizers.is_empty());
            if held {
                Ok(())
            } else {
                Err("no finalizer yet".to_owned())
            }
        },
    )
    .await?;
    kubectl(&format!(
        "wait --for=condition=Ready {} -n {namespace} --timeout=60s",
        "mcpge/ext"
    ))
    .map(drop)
}
