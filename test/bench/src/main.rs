//! Benchmarks, each with its baseline in the same run: `bench admission`, `bench operator`, `bench data-plane`, `bench micro`, and flame
//! graphs by `bench profile`. One module
//! for each subject; a module returns rows, [`report`] prints them. Run by `make bench`. The other subcommands are the
//! processes that the data-plane benchmark starts.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod admission;
mod clock;
mod data_plane;
mod micro;
mod operator;
mod profile;
mod report;

use clap::Parser;

/// Measures and prints a table with MET or MISSED for each target.
#[derive(Parser)]
#[command(name = "bench")]
enum Subject {
    /// The admission webhook: its handler in process, and creates through the API server with and without it.
    Admission(admission::Arguments),
    /// The operator: many namespaces, with everything around it played.
    Operator(operator::Arguments),
    /// The data plane: calls, lists, sessions and faults on every path, beside its baselines.
    DataPlane(data_plane::Arguments),
    /// Flame graphs of router, front and broker under load.
    Profile(data_plane::ProfileArguments),
    /// Single steps: decision, splice, token, list, catalog, admission.
    Micro(micro::Arguments),
    /// One of the processes that `data-plane` starts.
    #[command(flatten)]
    Part(data_plane::Part),
}

// The gateway has the allocator of its own program; the other parts have it too, baselines included.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let subject = Subject::parse();
    // The gateway has the threads that its own program would have.
    let runtime = match &subject {
        Subject::Part(data_plane::Part::Broker(_)) => mcp_gateway_broker::run::runtime()?,
        _ => tokio::runtime::Runtime::new()?,
    };
    runtime.block_on(run(subject))
}

async fn run(subject: Subject) -> anyhow::Result<()> {
    let rows = match subject {
        Subject::Admission(arguments) => admission::run(&arguments).await?,
        Subject::Operator(arguments) => operator::run(&arguments).await?,
        Subject::DataPlane(arguments) => data_plane::run(&arguments).await?,
        Subject::Profile(arguments) => data_plane::profile(&arguments).await?,
        Subject::Micro(arguments) => tokio::task::spawn_blocking(move || micro::run(&arguments)).await??,
        Subject::Part(part) => return part.run().await,
    };
    print!("{}", report::table(&rows));
    Ok(())
}
