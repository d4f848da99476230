//! The command line of the harness, and the order of its work.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use super::gateway::Front;
use super::install::{self, Tools};
use super::places::{self, Outcome, Plan};
use super::report;
use super::suite::Suite;

/// Runs the official MCP conformance suites and judges them scenario by scenario.
#[derive(Debug, Parser)]
#[command(name = "conformance", version)]
pub struct Cli {
    /// Where to run them.
    #[command(subcommand)]
    place: Place,
    /// Which ones.
    #[arg(long, global = true, value_enum, default_value_t)]
    suite: Choice,
    /// Where the suites' own results go.
    #[arg(long, global = true, default_value = "target/conformance")]
    results: PathBuf,
    /// Without npm, say so and end well. A skip is not a pass.
    #[arg(long, global = true)]
    may_skip: bool,
}

#[derive(Debug, Subcommand)]
enum Place {
    /// Against the fixture: once with JSON replies where possible, once with SSE always.
    Direct,
    /// Through Envoy, router and broker, with the fixture as the only server and an empty prefix.
    Gateway {
        /// Era of the fixture behind the gateway; by default that of the suite's client.
        #[arg(long, value_enum)]
        upstream: Option<crate::fixture::EraChoice>,
        /// Without Envoy and router: the broker's own front carries the calls (`--data-path=direct`).
        #[arg(long)]
        direct: bool,
        /// More flags for the broker.
        #[arg(long, value_name = "FLAG")]
        broker_flag: Vec<String>,
    },
    /// Through the standalone gateway, which has no Envoy.
    Standalone {
        /// Era of the fixture behind the gateway; by default that of the suite's client.
        #[arg(long, value_enum)]
        upstream: Option<crate::fixture::EraChoice>,
        /// More flags for the broker.
        #[arg(long, value_name = "FLAG")]
        broker_flag: Vec<String>,
    },
    /// No suite: a gateway with the fixture behind it, until it is interrupted.
    Serve {
        /// Era of the fixture behind the gateway.
        #[arg(long, value_enum, default_value_t)]
        upstream: crate::fixture::EraChoice,
        /// More flags for the broker.
        #[arg(long, value_name = "FLAG")]
        broker_flag: Vec<String>,
    },
    /// Against any address; it must be `localhost`.
    Url {
        /// The endpoint, e.g. `http://localhost:8080/mcp`.
        #[arg(long)]
        url: String,
        /// What the fixture behind it logs (its flag `--log`): proves that calls arrive.
        #[arg(long, value_name = "FILE")]
        fixture_log: Option<PathBuf>,
    },
    /// Only install what is needed.
    Install,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Choice {
    C1,
    C2,
    C3,
    C4,
    /// C1 and C3.
    Legacy,
    /// C2 and C4.
    Modern,
    #[default]
    All,
}

impl Choice {
    fn suites(self) -> Vec<Suite> {
        let chosen = |suite: &Suite| match self {
            Self::C1 => *suite == Suite::C1,
            Self::C2 => *suite == Suite::C2,
            Self::C3 => *suite == Suite::C3,
            Self::C4 => *suite == Suite::C4,
            Self::Legacy => !suite.is_modern(),
            Self::Modern => suite.is_modern(),
            Self::All => true,
        };
        Suite::ALL.into_iter().filter(chosen).collect()
    }
}

/// Does what the command line says. Fails when a scored scenario does.
///
/// # Errors
/// When a suite, the fixture or the gateway cannot be run.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Place::Serve {
        upstream,
        broker_flag,
    } = &cli.place
    {
        places::serve(*upstream, broker_flag).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let tools = match tokio::task::spawn_blocking(install::tools).await? {
        Ok(tools) => tools,
        Err(error) if cli.may_skip => {
            report::print(&format!("\nconformance: SKIPPED, nothing was proven: {error}\n"));
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let outcomes = outcomes(&cli, &tools).await?;
    report::print(&summary(&outcomes));
    let good = outcomes.iter().all(|outcome| outcome.report.is_good());
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn outcomes(cli: &Cli, tools: &Tools) -> anyhow::Result<Vec<Outcome>> {
    let plan = Plan {
        tools,
        suites: &cli.suite.suites(),
        results: &cli.results,
    };
    match &cli.place {
        Place::Install | Place::Serve { .. } => Ok(Vec::new()),
        Place::Direct => places::direct(&plan).await,
        Place::Gateway {
            upstream,
            direct,
            broker_flag,
        } => {
            let front = if *direct { Front::Direct } else { Front::Envoy };
            places::gateway(&plan, front, *upstream, broker_flag).await
        }
        Place::Standalone {
            upstream,
            broker_flag,
        } => places::gateway(&plan, Front::Standalone, *upstream, broker_flag).await,
        Place::Url { url, fixture_log } => places::url(&plan, url, fixture_log.as_deref()).await,
    }
}

fn summary(outcomes: &[Outcome]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for Outcome { place, suite, report } in outcomes {
        let (passed, all) = report.score();
        let mark = if report.is_good() { "ok  " } else { "FAIL" };
        let _ = write!(
            text,
            "\n{mark} {} {place}: {passed} of {all} scored",
            suite.name()
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn choices_are_sets_of_suites() {
        assert_eq!(Choice::Legacy.suites(), [Suite::C1, Suite::C3]);
        assert_eq!(Choice::Modern.suites(), [Suite::C2, Suite::C4]);
        assert_eq!(Choice::All.suites(), Suite::ALL);
    }
}
