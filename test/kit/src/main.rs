//! The command `kit`: parses the arguments and runs.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    mcp_gateway_kit::run(mcp_gateway_kit::Arguments::parse())
}
