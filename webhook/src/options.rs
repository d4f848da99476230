//! Flags and environment (operator.md 11.1).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

/// Admission webhook of the MCP gateway.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-gateway-webhook", version)]
pub struct Options {
    /// Directory with the serving pair: `tls.crt` and `tls.key`, or `apiserver.crt` and `apiserver.key`. Default: the
    /// first that exists of the two directories into which OLM mounts it.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// Secret of the pod's namespace with the serving pair, read beside the files every few seconds; of two valid pairs the
    /// newer one is served: a kubelet brings files late after a rotation.
    #[arg(long)]
    pub cert_secret: Option<String>,
    /// Address of the admission endpoints (TLS).
    #[arg(long, default_value = "0.0.0.0:9443")]
    pub bind_addr: SocketAddr,
    /// Address of `/healthz` and `/readyz`.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of `/metrics`.
    #[arg(long, default_value = "0.0.0.0:8082")]
    pub metrics_addr: SocketAddr,
    /// Log level: debug, info, warn, error, or -4, 0, 4, 8.
    #[arg(long, default_value = "0", allow_hyphen_values = true)]
    pub log_level: String,
    /// Log format.
    #[arg(long, value_enum, default_value_t = LogFormat::Txt)]
    pub log_format: LogFormat,
    /// Namespace of the claim Leases. Default: the namespace of the pod.
    #[arg(long)]
    pub claims_namespace: Option<String>,
    /// Warn when a Gateway or ReferenceGrant that a live extension depends on is deleted (needs its own webhook
    /// configuration).
    #[arg(long)]
    pub advisory: bool,
    /// Kubeconfig; default: the pod's own service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text.
    Txt,
    /// One JSON object a line.
    Json,
}

const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

impl Options {
    /// Where claims live: the flag, else `POD_NAMESPACE` or `NAMESPACE`, else the service account's namespace, else
    /// `mcp-system`.
    #[must_use]
    pub fn claims_namespace(&self) -> String {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.claims_namespace
            .clone()
            .or_else(|| named("POD_NAMESPACE"))
            .or_else(|| named("NAMESPACE"))
            .or_else(|| {
                std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE)
                    .ok()
                    .map(|text| text.trim().to_owned())
            })
            .unwrap_or_else(|| "mcp-system".to_owned())
    }
}
