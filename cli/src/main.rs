//! Entry point: arguments, then the subcommand.

use std::time::Duration;

use clap::{Parser, Subcommand};
use mcpgw::uninstall::{self, Uninstall};

/// Command line of MCP gateways.
#[derive(Parser)]
#[command(name = "mcpgw", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Before the operator is removed: it stops working, its webhook configurations go, and finalizers are released, so that
    /// every object can be deleted without it. Gateways keep serving.
    Uninstall {
        /// Namespace of the operator.
        #[arg(long, short, default_value = "mcp-system")]
        namespace: String,
        /// Seconds until it gives up.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Only the first call in a process can succeed, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Uninstall { namespace, timeout } => {
            let client = kube::Client::try_default().await?;
            let task = Uninstall { client, namespace };
            Ok(uninstall::run(&task, Duration::from_secs(timeout)).await?)
        }
    }
}
