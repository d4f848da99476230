//! Benchmarks, each with its baseline in the same run: `bench admission`, `bench operator`. One module for each subject; a module returns
//! rows, [`report`] prints them. Run by `make bench`, inside `kit run`.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod admission;
mod clock;
mod operator;
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rows = match Subject::parse() {
        Subject::Admission(arguments) => admission::run(&arguments).await?,
        Subject::Operator(arguments) => operator::run(&arguments).await?,
    };
    print!("{}", report::table(&rows));
    Ok(())
}
