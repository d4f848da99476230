//! Entry point: arguments, then the subcommand.

use std::{io, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use mcpgw::{
    explain::Explain,
    lint::Lint,
    uninstall::{self, Uninstall},
};

/// Command line of MCP gateways.
#[derive(Parser)]
#[command(name = "mcpgw", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Judges manifests by the admission rules, offline. Exit code 0: fine, 1: findings, 2: unreadable.
    Lint(Lint),
    /// Says whether a caller may use a tool, prompt or resource, by which rule, and what would have to change. Exit code 0:
    /// allowed, 1: denied, 2: not explained.
    Explain(Explain),
    /// Before the operator is removed: it stops working, its webhook configurations go, and finalizers are released, so that
    /// every object can be deleted without it. Gateways keep serving.
    Uninstall {
        /// Namespace of the operator.
        #[arg(long, short, default_value = "mcp-system")]
        namespace: String,
        /// Namespace whose extension is removed together with the operator; once for each.
        #[arg(long = "without-extension-in", value_name = "NAMESPACE")]
        without_extensions: Vec<String>,
        /// Seconds until it gives up.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // Only the first call in a process can succeed, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Lint(lint) => Ok(exit(
            "lint",
            lint.run(&mut io::stdout().lock()).map_err(anyhow::Error::from),
        )),
        Command::Explain(explain) => {
            let done = explain.run(&mut io::stdout().lock()).await;
            Ok(exit("explain", done.map_err(anyhow::Error::from)))
        }
        Command::Uninstall {
            namespace,
            without_extensions,
            timeout,
        } => {
            let client = kube::Client::try_default().await?;
            let task = Uninstall {
                client,
                namespace,
                without_extensions,
            };
            uninstall::run(&task, Duration::from_secs(timeout)).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What could not be read is another exit code than what is wrong.
#[expect(
    clippy::print_stderr,
    reason = "a command line tool says on stderr why it cannot work"
)]
fn exit(subcommand: &str, done: anyhow::Result<u8>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mcpgw {subcommand}: {error}");
            ExitCode::from(2)
        }
    }
}
