//! etcd, kube-apiserver, kube-controller-manager and istiod: their flags, their order of start, and what is stored before
//! anybody uses them.

mod flags;
mod install;

pub(crate) use install::{GATEWAY_CLASSES, everything as install};

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::binaries::Binaries;
use crate::certificates::{self, CertificateError};
use crate::eventually::{Unmet, eventually};
use crate::state_dir::StateDir;
use crate::supervisor::supervise;

/// The address of the node: API server, istiod, and the pods' default route.
pub(crate) const NODE_ADDRESS: &str = "192.0.2.1";
/// The secure port of the API server.
pub(crate) const API_PORT: u16 = 6443;
/// The plaintext port of istiod's xDS.
pub(crate) const XDS_PORT: u16 = 15010;

/// Why the control plane did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlPlaneError {
    /// Certificates could not be made.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A file could not be written.
    #[error("write control plane files: {0}")]
    Files(#[from] std::io::Error),
    /// The API server did not become ready.
    #[error("{0}; see logs/kube-apiserver.log and logs/etcd.log")]
    NotReady(#[from] Unmet),
    /// The API server refused an object.
    #[error("store {what}: {source}")]
    Store {
        /// Which object.
        what: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// What was to be stored is not a Kubernetes object.
    #[error("{what} is not an object: {reason}")]
    Object {
        /// Which object.
        what: String,
        /// What is wrong in it.
        reason: String,
    },
    /// The kubeconfig that was just written does not work.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A list of CRDs in the cache is not what was written there.
    #[error("CRD list {path}: {source}")]
    Crds {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
}

/// Starts everything; returns an administrator's client when the API server is ready.
pub(crate) async fn start(state: &StateDir, binaries: &Binaries) -> Result<kube::Client, ControlPlaneError> {
    certificates::write_all(&state.pki(), NODE_ADDRESS)?;
    flags::write_files(state)?;
    write_kubeconfig(
        state,
        &state.kubeconfig(),
        &format!("https://{NODE_ADDRESS}:{API_PORT}"),
    )?;
    supervise(state, flags::etcd(state, binaries));
    supervise(state, flags::kube_apiserver(state, binaries));
    let client = client(&state.kubeconfig()).await?;
    eventually(
        Duration::from_secs(60),
        "the API server to be ready",
        async || {
            let request = http_get("/readyz")?;
            client
                .request_text(request)
                .await
                .map_err(|error| error.to_string())
        },
    )
    .await?;
    supervise(state, flags::kube_controller_manager(state, binaries));
    supervise(state, flags::istiod(state, binaries));
    Ok(client)
}

/// An administrator's client for the kubeconfig at `path`.
pub(crate) async fn client(path: &std::path::Path) -> Result<kube::Client, ControlPlaneError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    kube::Client::try_from(config).map_err(|source| ControlPlaneError::Store {
        what: "client".to_owned(),
        source: Box::new(source),
    })
}

fn http_get(path: &str) -> Result<axum::http::Request<Vec<u8>>, String> {
    axum::http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())
}

/// Writes a kubeconfig for the administrator that reaches the API server at `server`.
pub(crate) fn write_kubeconfig(
    state: &StateDir,
    path: &std::path::Path,
    server: &str,
) -> std::io::Result<()> {
    use base64::Engine as _;
    let data = |name: &str| -> std::io::Result<String> {
        Ok(base64::engine::general_purpose::STANDARD.encode(std::fs::read(state.pki().join(name))?))
    };
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kit",
        "clusters": [{"name": "kit", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")?}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": data("admin.crt")?, "client-key-data": data("admin.key")?}}],
        "contexts": [{"name": "kit", "context": {"cluster": "kit", "user": "admin", "namespace": "default"}}],
    });
    std::fs::write(path, format!("{kubeconfig:#}\n"))
}
