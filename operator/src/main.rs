//! Entry point: arguments, then [`mcp_gateway_operator::run`].

use clap::Parser;
use mcp_gateway_operator::{options::Options, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run::run(Options::parse()).await
}
