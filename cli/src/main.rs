//! Entry point: arguments, then the subcommand.

use std::process::ExitCode;

use anyhow::Error;

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
            eprintln!("mcpgw: {}", sentence(&error));
            ExitCode::from(2)
        }
    }
}

/// An error with those of its causes that it does not tell already.
fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = Error::msg("no such file").context("cannot read x: no such file");
        assert_eq!(sentence(&error), "cannot read x: no such file");
        let error = Error::msg("no such file").context("cannot read x");
        assert_eq!(sentence(&error), "cannot read x: no such file");
    }
}
