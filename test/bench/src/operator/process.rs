//! The operator as a child process, with the permissions of its service account.

use std::{env, fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context;
use mcp_gateway_kit::Kit;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::clock::{memory_of, process_cpu};

/// How the user name of its requests ends.
pub(crate) const ACCOUNT: &str = ":mcp-gateway-controller";

/// It dies with this value.
pub(crate) struct Operator {
    child: Child,
}

impl Operator {
    pub(crate) fn start(kit: &Kit, token: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(kit.kubeconfig())?;
        let mut kubeconfig: Value = serde_json::from_str(&text).context("the kit's kubeconfig is JSON")?;
        let user = kubeconfig.pointer_mut("/users/0/user").context("it has a user")?;
        *user = serde_json::json!({"token": token});
        let file = kit.dir().join("bench.kubeconfig");
        fs::write(&file, kubeconfig.to_string())?;
        let log = fs::File::create(kit.dir().join("logs/bench-operator.log"))?;
        let beside = env::current_exe()?
            .parent()
            .map(PathBuf::from)
            .unwrap_or_default();
        let child = Command::new(beside.join("mcp-gateway-operator"))
            .arg(format!("--kubeconfig={}", file.display()))
            .arg("--webhook-certs=external")
            .env("POD_NAMESPACE", "mcp-system")
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

    /// Process id.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the operator ended")
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process_cpu(self.id()?)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        memory_of(self.id()?)
    }
}
