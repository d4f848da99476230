//! The control plane around the suite, and the one installation of operator and webhooks that all tests share.

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use anyhow::Context;
use mcp_gateway_kit::eventually;

use crate::kubectl::{apply, kubectl};

/// Namespace of operator and webhooks.
pub const OPERATOR_NAMESPACE: &str = "mcp-system";

static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();

/// The running control plane with the operator installed as `config/install` says.
#[derive(Clone, Copy, Debug)]
pub struct Cluster;

impl Cluster {
    /// Installs operator and webhooks on the first call and waits until admission decides.
    ///
    /// # Errors
    /// When the installation does not come up; every later call repeats the error.
    pub async fn ready() -> anyhow::Result<Self> {
        let installed = tokio::task::spawn_blocking(|| {
            INSTALLED.get_or_init(|| install().map_err(|error| format!("{error:#}"))).clone()
        });
        installed.await?.map_err(anyhow::Error::msg)?;
        eventually(Duration::from_secs(60), "admission to decide", async || {
            match apply_probe() {
                Ok(()) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        Ok(Self)
    }
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn install() -> anyhow::Result<()> {
    // Two providers may be compiled in; whoever comes first has chosen this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = repository().join("config/install");
    let config = config.to_str().context("the repository's path is not UTF-8")?;
    kubectl(&format!("apply -k {config}"))?;
    kubectl(&format!("wait --for=condition=Available deployment --all -n {OPERATOR_NAMESPACE} --timeout=90s"))?;
    Ok(())
}

/// A dry-run create of an extension passes only when the webhook can be reached.
fn apply_probe() -> anyhow::Result<()> {
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: probe}}")?;
    let probe = "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {name: probe, namespace: probe}, \
        spec: {targetRef: {name: probe, sectionName: probe}}}";
    crate::kubectl::dry_run(probe).map(drop)
}
