//! Runs the fixture until it is interrupted.

use std::io::Write as _;

use clap::Parser as _;
use mcp_gateway_conformance::fixture::{Options, start};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let running = start(Options::parse()).await?;
    writeln!(std::io::stdout(), "listening on {}", running.url())?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
