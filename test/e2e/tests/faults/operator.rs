//! The operator as a child process, under the permissions of its installed service account.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context;
use mcp_gateway_e2e::{OPERATOR_NAMESPACE, kubectl};
use mcp_gateway_kit::Kit;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::proxy::Proxy;

const HEALTH: &str = "127.0.0.1:18081";
const METRICS: &str = "127.0.0.1:18082";

/// A running operator; it dies with this value.
pub(crate) struct Operator {
    child: Child,
}

impl Operator {
    /// Starts one that speaks to the API server through `proxy` only.
    pub(crate) fn start(proxy: &Proxy) -> anyhow::Result<Self> {
        let kit = Kit::from_env()?;
        let token = kubectl(&format!(
            "create token mcp-gateway-controller -n {OPERATOR_NAMESPACE} --duration=4h"
        ))?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": proxy.url()}}],
            "users": [{"name": "operator", "user": {"token": token.trim()}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        });
        let file = kit.dir().join("faults.kubeconfig");
        std::fs::write(&file, kubeconfig.to_string())?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(kit.dir().join("logs/faults-operator.log"))?;
        let programs = env::var_os("MCPGW_BIN_DIR").map(PathBuf::from);
        let program = programs
            .context("MCPGW_BIN_DIR is not set")?
            .join("mcp-gateway-operator");
        let child = Command::new(program)
            .arg(format!("--kubeconfig={}", file.display()))
            .args([
                format!("--health-addr={HEALTH}"),
                format!("--metrics-addr={METRICS}"),
            ])
            .args(["--status-interval=5s", "--log-level=debug"])
            .env("POD_NAMESPACE", OPERATOR_NAMESPACE)
            // The same name after a crash, as a container that is restarted in its pod has.
            .env("POD_NAME", "operator-under-faults")
            .env(
                "RELATED_IMAGE_ROUTER_BROKER",
                "ghcr.io/mcp-gateway-operator/broker:0.1.0",
            )
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .context("start the operator")?;
        Ok(Self { child })
    }

    /// `kill -9`, and the process is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks `/readyz`.
    pub(crate) async fn is_ready(&self) -> Result<(), String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2));
        let answer = async {
            let request = http.build()?.get(format!("http://{HEALTH}/readyz"));
            request.send().await?.error_for_status()
        };
        answer.await.map(drop).map_err(|error| error.to_string())
    }
}
