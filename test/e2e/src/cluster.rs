//! The control plane around the suite, and the one installation of operator and webhooks that all tests share.

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use anyhow::Context;
use mcp_gateway_kit::eventually;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::kubectl::{apply, kubectl, kubectl_with};

/// Namespace of operator and webhooks.
pub const OPERATOR_NAMESPACE: &str = "mcp-system";

static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
static USE: RwLock<()> = RwLock::const_new(());

/// The running control plane with the operator installed as `config/install` says. Hold it as long as the test uses
/// operator or webhooks.
#[derive(Debug)]
#[must_use = "another test may break operator and webhooks once it is dropped"]
pub struct Cluster {
    _use: Use,
}

#[derive(Debug)]
enum Use {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Cluster {
    /// Installs operator and webhooks on the first call and waits until admission decides. Tests share it.
    ///
    /// # Errors
    /// When the installation does not come up; every later call repeats the error.
    pub async fn ready() -> anyhow::Result<Self> {
        let cluster = Self {
            _use: Use::Shared {
                _guard: USE.read().await,
            },
        };
        up().await.map(|()| cluster)
    }

    /// The same for a test that breaks operator or webhooks: no other test uses them meanwhile.
    ///
    /// # Errors
    /// As [`Cluster::ready`].
    pub async fn alone() -> anyhow::Result<Self> {
        let cluster = Self {
            _use: Use::Alone {
                _guard: USE.write().await,
            },
        };
        up().await.map(|()| cluster)
    }
}

async fn up() -> anyhow::Result<()> {
    let installed = tokio::task::spawn_blocking(|| {
        INSTALLED
            .get_or_init(|| install().map_err(|error| format!("{error:#}")))
            .clone()
    });
    installed.await?.map_err(anyhow::Error::msg)?;
    reinstate()?;
    let probe = async || apply_probe().map_err(|error| format!("{error:#}"));
    Ok(eventually(Duration::from_secs(60), "admission to decide", probe).await?)
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

const CONFIGURATIONS: &str =
    "validatingwebhookconfiguration/mcp-gateway-webhook mutatingwebhookconfiguration/mcp-gateway-webhook";

/// Takes admission away, for a test that runs alone. The operator makes the configurations again at once, so it is away,
/// too, until [`with_admission`] or the next test. The API server may judge by its copy for a moment longer.
///
/// # Errors
/// When kubectl fails, or the operator does not end.
pub fn without_admission() -> anyhow::Result<()> {
    scale_operator(0)?;
    kubectl(&format!(
        "wait --for=delete pod -l app.kubernetes.io/name=mcp-gateway-operator -n {OPERATOR_NAMESPACE} --timeout=60s"
    ))?;
    kubectl(&format!("delete --ignore-not-found {CONFIGURATIONS}")).map(drop)
}

/// Brings the operator back, which brings admission back.
///
/// # Errors
/// When kubectl fails.
pub fn with_admission() -> anyhow::Result<()> {
    scale_operator(1)
}

fn scale_operator(replicas: u8) -> anyhow::Result<()> {
    kubectl(&format!(
        "scale deployment mcp-gateway-controller -n {OPERATOR_NAMESPACE} --replicas={replicas}"
    ))
    .map(drop)
}

/// Some tests take admission away; one that failed may not have brought it back.
fn reinstate() -> anyhow::Result<()> {
    if kubectl(&format!("get {CONFIGURATIONS}")).is_err() {
        apply_install()?;
        with_admission()?;
    }
    Ok(())
}

fn apply_install() -> anyhow::Result<String> {
    let config = repository().join("config/install");
    let config = config.to_str().context("the repository's path is not UTF-8")?;
    kubectl(&format!("apply -k {config}"))
}

fn install() -> anyhow::Result<()> {
    // Two providers may be compiled in; whoever comes first has chosen this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    apply_install()?;
    kubectl(&format!(
        "wait --for=condition=Available deployment --all -n {OPERATOR_NAMESPACE} --timeout=90s"
    ))?;
    Ok(())
}

/// A dry-run create of an extension passes only when the webhook can be reached.
fn apply_probe() -> anyhow::Result<()> {
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: probe}}")?;
    let probe = "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {name: probe, namespace: probe}, \
        spec: {targetRef: {name: probe, sectionName: probe}}}";
    // The default is the mutating webhook's, and without the validating one the API server refuses.
    let path = "jsonpath={.spec.targetRef.namespace}";
    let filled = kubectl_with(&["create", "--dry-run=server", "-o", path, "-f", "-"], probe)?;
    anyhow::ensure!(filled.trim() == "probe", "no default was filled in: {filled:?}");
    Ok(())
}
