//! Rows of results and how they are printed.

use std::{fmt, time::Duration};

/// One measured quantity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The values, as text.
    pub(crate) values: String,
    /// Whether the target was met; `None` for a row without one.
    pub(crate) target: Option<Target>,
}

/// A target and the value that is held against it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    bound: Bound,
    measured: Quantity,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Below(Quantity),
    AtLeast(Quantity),
}

/// A value with its unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Quantity {
    /// Time.
    Time(Duration),
    /// Part of a baseline of the same run.
    Ratio(f64),
    /// Memory.
    Bytes(u64),
    /// A number of things.
    Count(u64),
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) if time.as_secs() > 0 => write!(f, "{:.1} s", time.as_secs_f64()),
            Self::Time(time) => write!(f, "{:.0} µs", time.as_secs_f64() * 1e6),
            Self::Ratio(ratio) => write!(f, "{ratio:.3}×"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Bytes(bytes) if *bytes < 1 << 20 => write!(f, "{:.1} KiB", *bytes as f64 / 1024.0),
            Self::Bytes(bytes) => write!(f, "{:.1} MiB", *bytes as f64 / 1_048_576.0),
        }
    }
}

impl Target {
    /// `measured` must be below `bound`.
    pub(crate) fn below(measured: Quantity, bound: Quantity) -> Self {
        Self {
            bound: Bound::Below(bound),
            measured,
        }
    }

    /// `measured` must be `bound` or more.
    pub(crate) fn at_least(measured: Quantity, bound: Quantity) -> Self {
        Self {
            bound: Bound::AtLeast(bound),
            measured,
        }
    }

    fn verdict(&self) -> &'static str {
        let met = match self.bound {
            Bound::Below(bound) => self.measured < bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        };
        if met { "MET" } else { "MISSED" }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, bound) = match self.bound {
            Bound::Below(bound) => ("<", bound),
            Bound::AtLeast(bound) => ("≥", bound),
        };
        write!(
            f,
            "{:<7} {} (target {sign} {bound})",
            self.verdict(),
            self.measured
        )
    }
}

/// Sorted measurements.
#[derive(Clone, Debug)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn new(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self(all)
    }

    /// The value below which `percent` of all lie; zero when there are none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = self.0.len().saturating_sub(1) * percent / 100;
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn mean(&self) -> Duration {
        let sum: Duration = self.0.iter().sum();
        sum.checked_div(u32::try_from(self.0.len()).unwrap_or(u32::MAX))
            .unwrap_or_default()
    }

    /// `p50 …, p99 …`
    pub(crate) fn summary(&self) -> String {
        let (middle, high) = (
            Quantity::Time(self.percentile(50)),
            Quantity::Time(self.percentile(99)),
        );
        format!("p50 {middle}, p99 {high}")
    }
}

/// `part` of `whole`.
pub(crate) fn ratio(part: Duration, whole: Duration) -> Quantity {
    Quantity::Ratio(part.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE))
}

/// The rows as an aligned table.
pub(crate) fn table(rows: &[Row]) -> String {
    let width = |text: &str| text.chars().count();
    let what = rows.iter().map(|row| width(&row.what)).max().unwrap_or(0);
    // A row without a verdict may be as long as it likes.
    let judged = rows.iter().filter(|row| row.target.is_some());
    let values = judged.map(|row| width(&row.values)).max().unwrap_or(0);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut text = format!(
        "Times are wall clock unless they say CPU. Others may use this machine too: load {}\n",
        load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
    );
    for row in rows {
        let verdict = row.target.as_ref().map(Target::to_string).unwrap_or_default();
        text.push_str(format!("{:<what$}  {:<values$}  {verdict}", row.what, row.values).trim_end());
        text.push('\n');
    }
    text
}

/// The rows for programs: what, values, verdict.
///
/// # Errors
/// Never for rows of text.
pub(crate) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "what": row.what, "values": row.values,
                "measured": row.target.as_ref().map(|target| target.measured.to_string()),
                "verdict": row.target.as_ref().map(Target::verdict),
                "target": row.target.as_ref().map(Target::to_string),
            })
        })
        .collect();
    serde_json::to_string_pretty(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_measurements() {
        let sample = Sample::new((1..=100).rev().map(Duration::from_micros).collect());
        assert_eq!(sample.percentile(50), Duration::from_micros(50));
        assert_eq!(sample.percentile(99), Duration::from_micros(99));
        assert_eq!(Sample::new(vec![]).percentile(99), Duration::ZERO);
    }

    #[test]
    fn a_table_says_which_targets_are_missed() {
        let row = |measured| Row {
            what: "create".to_owned(),
            values: "x".to_owned(),
            target: Some(Target::below(Quantity::Ratio(measured), Quantity::Ratio(1.3))),
        };
        let text = table(&[row(1.2), row(1.3)]);
        assert!(
            text.contains("create  x  MET     1.200× (target < 1.300×)\n"),
            "{text}"
        );
        assert!(text.contains("create  x  MISSED  1.300×"), "{text}");
    }
}
