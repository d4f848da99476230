//! Entry point: arguments, then the subcommand.

use std::process::ExitCode;

use clap::Parser as _;
use mcpgw::arguments::Arguments;

#[tokio::main]
#[expect(
    clippy::print_stderr,
    reason = "a command line tool says on stderr why it cannot work"
)]
async fn main() -> ExitCode {
    // Only the first call in a process can succeed, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().run().await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mcpgw: {error:#}");
            ExitCode::from(2)
        }
    }
}
