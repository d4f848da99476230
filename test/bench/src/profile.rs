//! Where a process spends its time: perf records it under load, inferno draws the flame graph.

use std::{
    collections::HashMap,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use inferno::{
    collapse::{Collapse, perf::Folder},
    flamegraph::{self, Options},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command as Spawned};

use crate::report::Row;

/// Samples in a second; no divisor of the kernel's ticks.
const FREQUENCY: &str = "997";
/// Functions that are listed.
const HOTTEST: usize = 15;

/// A recording that runs.
pub(crate) struct Recording {
    perf: Child,
    data: PathBuf,
}

impl Recording {
    /// Begins to record a process, into `<folder>/<name>.perf`.
    ///
    /// # Errors
    /// When there is no perf.
    pub(crate) fn start(process: u32, folder: &Path, name: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let data = folder.join(format!("{name}.perf"));
        // The clock and not the cycle counter, which virtual machines do not have.
        let perf = Spawned::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-g", "-F", FREQUENCY])
            .args(["-p", &process.to_string(), "-o"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("run perf: install linux-perf")?;
        Ok(Self { perf, data })
    }

    /// Ends it, writes `<folder>/<name>.svg` and says which functions took most.
    ///
    /// # Errors
    /// When perf recorded nothing, for example because it may not (`kernel.perf_event_paranoid`).
    pub(crate) async fn finish(mut self) -> anyhow::Result<Vec<Row>> {
        let id = self.perf.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.context("perf ended before the load")?, Signal::INT)?;
        self.perf.wait().await?;
        tokio::task::spawn_blocking(move || drawn(&self.data)).await?
    }
}

fn drawn(data: &Path) -> anyhow::Result<Vec<Row>> {
    let mut script = Command::new("perf")
        .args(["script", "-i"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let samples = script.stdout.take().context("perf script has an output")?;
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(samples), &mut folded)?;
    script.wait()?;
    let folded = String::from_utf8_lossy(&folded);
    ensure!(!folded.is_empty(), "perf recorded nothing in {}", data.display());
    let svg = data.with_extension("svg");
    let mut options = Options::default();
    flamegraph::from_lines(&mut options, folded.lines(), std::fs::File::create(&svg)?)?;
    let mut rows = vec![Row {
        what: svg.display().to_string(),
        values: String::new(),
        target: None,
    }];
    rows.extend(hottest(&folded));
    Ok(rows)
}

/// The functions that were running in most samples. A line is `frame;frame;… count`.
fn hottest(folded: &str) -> impl Iterator<Item = Row> + use<> {
    let mut own = HashMap::<&str, u64>::new();
    for (stack, count) in folded.lines().filter_map(|line| line.rsplit_once(' ')) {
        let count: u64 = count.parse().unwrap_or_default();
        *own.entry(stack.rsplit(';').next().unwrap_or_default())
            .or_default() += count;
    }
    let whole: u64 = own.values().sum();
    let mut own: Vec<(String, u64)> = own
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    own.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    own.truncate(HOTTEST);
    own.into_iter().map(move |(name, count)| Row {
        what: format!("  {:.1} %", count as f64 * 100.0 / whole.max(1) as f64),
        values: name,
        target: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_on_top_of_the_stack_was_running() {
        let rows: Vec<Row> = hottest("a;b;c 3\na;c 1\na;b 4\na 2").collect();
        let found: Vec<&str> = rows.iter().map(|row| row.values.as_str()).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(rows[0].what, "  40.0 %");
        assert_eq!(found[2], "a");
    }
}
