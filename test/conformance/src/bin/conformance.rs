//! Runs the official MCP conformance suites; see `conformance --help`.

use std::process::ExitCode;

use clap::Parser as _;
use mcp_gateway_conformance::harness::{Cli, run};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    run(Cli::parse()).await
}
