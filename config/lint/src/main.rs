//! `mcp-gateway-lint`: the rules over this repository; exit code 1 when one is broken.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Parser;
use mcp_gateway_lint::{RULES, repository::Repository};

/// Lints bundle, catalog and released bundles.
#[derive(Parser)]
struct Arguments {
    /// Root of the repository.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Print the rules.
    #[arg(long)]
    rules: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    if arguments.rules {
        for (name, what) in RULES {
            writeln!(out, "{name}: {what}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let findings = Repository::read(&arguments.root)?.lint();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
