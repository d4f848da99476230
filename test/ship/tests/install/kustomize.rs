//! Installs by `kubectl apply -k`, of `config/default` and of `config/install`, and the guide to uninstalling as it stands.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Reader, Site, apply, delete, get, kubectl};
use mcp_gateway_kit::eventually;
use mcp_gateway_ship::helm::root;

use crate::{CLUSTER, cluster::prepare};

/// Shorter than an uninstall holds the operator's Lease.
const SOON: Duration = Duration::from_secs(90);

/// What is left of ours in the cluster.
fn left() -> Result<(), String> {
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations,crd,envoyfilter,clusterroles";
    let left = kubectl(&format!("get {kinds} -A -o name")).map_err(|error| format!("{error:#}"))?;
    let ours: Vec<&str> = left.lines().filter(|line| line.contains("mcp")).collect();
    if ours.is_empty() {
        Ok(())
    } else {
        Err(ours.join(", "))
    }
}

/// Kustomizations that are applied elsewhere: those of the guides to OLM (`schemas`), those whose objects lie in namespaces of
/// their own or are of other operators' kinds (`make demo`, the end-to-end suite).
const ELSEWHERE: [&str; 5] = [
    "olm",
    "olm-upstream",
    "samples",
    "example-access-control",
    "observability",
];

/// What the API server says about each kustomization as a dry run.
fn dry_runs(reader: &Reader) -> anyhow::Result<()> {
    let mut tried = 0;
    for entry in std::fs::read_dir(root().join("config"))? {
        let folder = entry?.path();
        let name = folder
            .file_name()
            .context("a folder without a name")?
            .to_string_lossy()
            .into_owned();
        if !folder.join("kustomization.yaml").is_file() || ELSEWHERE.contains(&name.as_str()) {
            continue;
        }
        reader.shell(&format!(
            "kubectl apply --dry-run=server --validate=strict -k config/{name}"
        ))?;
        tried += 1;
    }
    ensure!(tried >= 6, "only {tried} kustomizations");
    Ok(())
}

/// Installs, and waits until an operator of this installation leads.
async fn install(reader: &Reader, folder: &str) -> anyhow::Result<()> {
    reader.shell(&format!("kubectl apply -k config/{folder}"))?;
    eventually(SOON, "the operator to lead", async || {
        let lease = get("lease mcp-gateway-operator -n mcp-system").map_err(|error| format!("{error:#}"))?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let free = lease["metadata"]["annotations"]["mcp.kuadrant.io/uninstalled"].is_null();
        (free && holder.starts_with("mcp-gateway-controller"))
            .then_some(())
            .ok_or_else(|| lease.to_string())
    })
    .await?;
    reader.shell("kubectl wait --for=condition=Available deployment --all -n mcp-system --timeout=2m")?;
    Ok(())
}

#[tokio::test]
async fn what_kustomize_installs_works_and_the_guide_to_uninstalling_leaves_nothing() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    let reader = Reader::new("leaving")?;
    let blocks = Reader::blocks("docs/guides/uninstall.md")?;
    let [extensions, installation, filters, hanging] = blocks.as_slice() else {
        anyhow::bail!("{} blocks", blocks.len())
    };
    // The one without the Namespace, which is the admin's.
    kubectl("create namespace mcp-system")?;
    dry_runs(&reader)?;
    install(&reader, "default").await?;
    let elsewhere = reader.shell("mcpgw uninstall --namespace default 2>&1 || true")?;
    ensure!(
        elsewhere.contains("it is in mcp-system: give --namespace mcp-system"),
        "{elsewhere}"
    );
    let site = Site::create("leaving")?;
    apply(&site.extension("leaving", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n leaving")?;
    let removed = reader.run(extensions)?;
    ensure!(removed.contains("remove it in this time"), "{removed}");
    reader.shell("kubectl delete deployment mcp-gateway-controller mcp-gateway-webhook -n mcp-system")?;

    install(&reader, "install").await?;
    reader.run(hanging)?;
    reader.run(installation)?;
    reader.run(filters)?;
    // Where the operator's namespace went first.
    let released = reader.shell("mcpgw uninstall --namespace mcp-system")?;
    ensure!(
        released.contains("There is no operator in mcp-system"),
        "{released}"
    );
    eventually(SOON, "nothing to be left", async || left()).await?;
    delete("namespace leaving leaving-gw leaving-servers").map(drop)
}
