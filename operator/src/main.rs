//! Entry point: arguments, then [`mcp_gateway_operator::run`].

use clap::Parser;
use mcp_gateway_operator::{options::Options, run};

/// Gives back what the first lists of a large cluster took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run::run(Options::parse()).await
}
