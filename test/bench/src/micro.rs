//! Single steps of a request, of a catalog rebuild and of admission: times by criterion, or instruction counts by valgrind,
//! which are the same on every run.

mod cases;

use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use criterion::Criterion;

use crate::{
    admission::changed_registration,
    report::{Quantity, Row},
};

/// Repetitions of the shorter and the longer run of which the difference is taken.
const REPEATS: [u64; 2] = [10, 60];

/// Options of `bench micro`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Instructions, counted by valgrind, instead of times.
    #[arg(long)]
    instructions: bool,
    /// Does the case so many times and measures nothing.
    #[arg(long, hide = true)]
    repeat: Option<u64>,
}

/// Measures; criterion prints its own results.
///
/// # Errors
/// When valgrind is not there.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let cases = cases::all(&arguments.only, changed_registration)?;
    ensure!(!cases.is_empty(), "no case is named {:?}", arguments.only);
    if let Some(times) = arguments.repeat {
        for mut case in cases {
            (0..times).for_each(|_| (case.step)());
        }
        return Ok(Vec::new());
    }
    if arguments.instructions {
        return cases.iter().map(|case| instructions(case.name)).collect();
    }
    let mut criterion = Criterion::default();
    for mut case in cases {
        criterion.bench_function(case.name, |bencher| bencher.iter(|| (case.step)()));
    }
    criterion.final_summary();
    Ok(Vec::new())
}

/// What one step takes: the difference of two runs that differ in repetitions only.
fn instructions(name: &str) -> anyhow::Result<Row> {
    let [short, long] = REPEATS;
    let (few, many) = (counted(name, short)?, counted(name, long)?);
    Ok(Row {
        what: format!("instructions to {name}"),
        values: Quantity::Count(many.saturating_sub(few) / (long - short)).to_string(),
        target: None,
    })
}

/// Instructions of this program doing the case so many times.
fn counted(name: &str, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["micro", "--only", name, "--repeat", &times.to_string()])
        .output()
        .context("run valgrind: install it, or measure times instead")?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("valgrind counted nothing:\n{text}"))
}
