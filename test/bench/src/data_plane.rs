//! The data plane under load (issue I): tools/call, tools/list, sessions, memory and faults, each with its baselines in
//! the same run. Everything but the generator is a process of its own, so that CPU time can be told apart.

mod calls;
mod catalog;
mod envoy;
mod faults;
mod hop;
mod lists;
mod load;
mod mock;
mod no_op;
mod parts;
mod profile;
mod session;
mod sessions;
mod stage;
mod start;
mod tokens;

use std::{path::PathBuf, time::Duration};

pub(crate) use load::Connection;
pub(crate) use profile::{Arguments as ProfileArguments, run as profile};
pub(crate) use session::{open, request};
pub(crate) use stage::{Program, free, listening};

use crate::report::Row;

/// Options of `bench data-plane`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; baselines and candidates take turns in each. The median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for one case in one round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Sessions of the memory and the think-time scenario.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Seconds of the think-time scenario.
    #[arg(long, default_value_t = 120)]
    think: u64,
    /// Under two minutes: fewer rounds, shorter load, fewer sessions.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains this: calls, latency, lists, first, memory, think, catalog, tokens, faults,
    /// start.
    #[arg(long, default_value = "")]
    only: String,
    /// Worker threads of the gateways, to see what their number does.
    #[arg(long)]
    workers: Option<usize>,
    /// Where the rows go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    fn adjusted(&self) -> Plan {
        let quick = |whole, short| if self.quick { short } else { whole };
        Plan {
            rounds: quick(self.rounds, 2),
            load: Duration::from_secs(quick(self.seconds as usize, 1) as u64),
            sessions: quick(self.sessions, 1_000),
            think: Duration::from_secs(quick(self.think as usize, 10) as u64),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    load: Duration,
    sessions: usize,
    think: Duration,
}

/// Runs the scenarios and returns their rows.
///
/// # Errors
/// When a process does not start, or a call fails that must not.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let plan = arguments.adjusted();
    if let Some(workers) = arguments.workers {
        let _ = stage::WORKERS.set(workers);
    }
    let wanted = |name: &str| name.contains(&arguments.only);
    let mut rows = Vec::new();
    if wanted("calls") {
        rows.extend(calls::throughput(plan).await?);
    }
    if wanted("latency") {
        rows.extend(calls::latency(plan).await?);
    }
    if wanted("lists") {
        rows.extend(lists::run(plan).await?);
    }
    if wanted("first") {
        rows.extend(sessions::first_call(plan).await?);
    }
    if wanted("memory") {
        rows.extend(sessions::memory(plan).await?);
    }
    if wanted("think") {
        rows.extend(sessions::think_time(plan).await?);
    }
    if wanted("catalog") {
        rows.extend(catalog::run(plan).await?);
    }
    if wanted("tokens") {
        rows.extend(tokens::run(plan).await?);
    }
    if wanted("faults") {
        rows.extend(faults::run(plan).await?);
    }
    if wanted("start") {
        rows.extend(start::run(plan).await?);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, crate::report::json(&rows)?)?;
    }
    Ok(rows)
}

/// A process that takes part in a measurement.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// MCP servers that answer at once.
    #[command(hide = true)]
    Mock(mock::Arguments),
    /// An external processor that does nothing.
    #[command(hide = true)]
    NoOp(no_op::Arguments),
    /// A bare hop.
    #[command(hide = true)]
    Hop(hop::Arguments),
    /// The bytes of a file, as JSON.
    #[command(hide = true)]
    Static(parts::StaticArguments),
    /// What `mcp-gateway-broker` runs, with servers on loopback allowed.
    #[command(hide = true)]
    Broker(parts::BrokerArguments),
}

impl Part {
    /// Runs until the process is killed.
    ///
    /// # Errors
    /// When a port is taken or a flag is not understood.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Mock(arguments) => mock::serve(arguments).await,
            Self::NoOp(arguments) => no_op::serve(arguments).await,
            Self::Hop(arguments) => hop::serve(arguments).await,
            Self::Static(arguments) => parts::serve_static(arguments).await,
            Self::Broker(arguments) => parts::serve_broker(arguments).await,
        }
    }
}
