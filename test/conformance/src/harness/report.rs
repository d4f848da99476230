//! From results to a judgement, and the judgement as a table. Pure but for the last step.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::fixture::Entry;

use super::baseline::Baseline;
use super::evidence;
use super::verdict::{Scenario, Status, Verdict};

/// Longest reason in a table; the whole text is in the results.
const REASON: usize = 160;

/// What a run is judged by.
pub(crate) struct Expectation<'a> {
    pub(crate) scored: &'a BTreeSet<String>,
    pub(crate) baseline: &'a Baseline,
    /// What the fixture saw; nothing when that is not known.
    pub(crate) journal: Option<&'a [Entry]>,
    /// Something stands between the suite and the fixture.
    pub(crate) gateway: bool,
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) scored: bool,
    pub(crate) good: bool,
    pub(crate) text: String,
}

/// A judged run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) stale: Vec<String>,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        self.stale.is_empty() && self.rows.iter().all(|row| row.good)
    }

    /// How many scored scenarios passed, of how many.
    pub(crate) fn score(&self) -> (usize, usize) {
        let scored = self.rows.iter().filter(|row| row.scored);
        (scored.clone().filter(|row| row.good).count(), scored.count())
    }
}

/// Judges a run, scored scenarios first.
pub(crate) fn judge(scenarios: &[Scenario], expected: &Expectation<'_>) -> Report {
    let mut rows: Vec<_> = expected
        .scored
        .iter()
        .map(|name| {
            let found = scenarios.iter().find(|scenario| scenario.name == *name);
            let wrong = found.map_or_else(|| vec!["was not run".to_owned()], |found| wrong(found, expected));
            row(name, true, found, &wrong)
        })
        .collect();
    for scenario in scenarios
        .iter()
        .filter(|scenario| !expected.scored.contains(&scenario.name))
    {
        let unexpected = expected.baseline.unexpected(scenario);
        rows.push(row(&scenario.name, false, Some(scenario), &unexpected));
    }
    let stale = expected
        .baseline
        .stale(scenarios)
        .into_iter()
        .map(str::to_owned)
        .collect();
    Report { rows, stale }
}

/// Everything that keeps a scored scenario from counting.
fn wrong(scenario: &Scenario, expected: &Expectation<'_>) -> Vec<String> {
    let mut wrong: Vec<_> = scenario
        .complaints()
        .map(|check| {
            format!(
                "{}: {}",
                check.id,
                check.error_message.as_deref().unwrap_or("no reason given")
            )
        })
        .collect();
    if scenario.verdict() == Verdict::Skipped {
        wrong.push("nothing was checked".to_owned());
    }
    if let Some(journal) = expected.journal {
        let missing = evidence::missing(&scenario.name, journal, expected.gateway);
        wrong.extend(
            missing
                .iter()
                .map(|evidence| format!("the fixture never saw: {evidence}")),
        );
        if !evidence::is_known(&scenario.name) {
            wrong.push("evidence.rs does not know this scenario".to_owned());
        }
    }
    wrong
}

fn row(name: &str, scored: bool, scenario: Option<&Scenario>, wrong: &[String]) -> Row {
    let passed = scenario.map_or(0, |scenario| scenario.count(Status::Success));
    let text = match (wrong.is_empty(), scenario.map(Scenario::verdict)) {
        (false, _) => wrong
            .iter()
            .map(|reason| shorten(reason))
            .collect::<Vec<_>>()
            .join(" | "),
        (true, Some(Verdict::Failed | Verdict::Warned)) => "fails, as expected".to_owned(),
        (true, Some(Verdict::Skipped)) => "does not apply".to_owned(),
        (true, _) => format!("{passed} checks"),
    };
    Row {
        scenario: name.to_owned(),
        scored,
        good: wrong.is_empty(),
        text,
    }
}

fn shorten(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= REASON {
        return line;
    }
    line.chars().take(REASON).chain(['…']).collect()
}

/// The table of one run.
pub(crate) fn table(title: &str, report: &Report) -> String {
    let width = report
        .rows
        .iter()
        .map(|row| row.scenario.len())
        .max()
        .unwrap_or_default();
    let mut text = format!("\n{title}\n");
    for row in &report.rows {
        let mark = if row.good { "ok  " } else { "FAIL" };
        let scored = if row.scored { "" } else { " (not scored)" };
        let _ = writeln!(text, "  {mark} {:width$}  {}{scored}", row.scenario, row.text);
    }
    for entry in &report.stale {
        let _ = writeln!(
            text,
            "  FAIL {entry} does not fail any more: take it out of baseline.yml"
        );
    }
    let (passed, all) = report.score();
    let _ = writeln!(text, "  {passed} of {all} scored scenarios passed");
    text
}

/// Writes to standard output. A closed one is nobody's problem.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A line about what goes on, on standard error.
pub(crate) fn progress(text: &str) {
    let _closed = writeln!(std::io::stderr(), "==> {text}");
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Check;
    use super::*;
    use crate::fixture::Kind;

    fn scenario(name: &str, status: Status) -> Scenario {
        let check = Check {
            id: "c".into(),
            status,
            error_message: Some("why".into()),
        };
        Scenario {
            name: name.into(),
            checks: vec![check],
        }
    }

    fn seen(tool: &str) -> Entry {
        Entry {
            kind: Kind::Request,
            era: "legacy".into(),
            method: "tools/call".into(),
            target: Some(tool.into()),
            session: None,
            headers: Vec::new(),
        }
    }

    fn judged(scenarios: &[Scenario], journal: Option<&[Entry]>) -> Report {
        let scored = BTreeSet::from(["tools-call-simple-text".to_owned()]);
        let baseline = Baseline::default();
        judge(
            scenarios,
            &Expectation {
                scored: &scored,
                baseline: &baseline,
                journal,
                gateway: true,
            },
        )
    }

    #[test]
    fn a_scored_scenario_counts_when_it_passed_and_the_fixture_saw_it() {
        let passed = [scenario("tools-call-simple-text", Status::Success)];
        assert!(judged(&passed, Some(&[seen("test_simple_text")])).is_good());
        assert!(
            !judged(&passed, Some(&[seen("test_image_content")])).is_good(),
            "vacuous"
        );
        assert!(judged(&passed, None).is_good());
    }

    #[test]
    fn failed_warned_skipped_and_absent_scenarios_do_not_count() {
        for status in [Status::Failure, Status::Warning, Status::Skipped] {
            assert!(
                !judged(&[scenario("tools-call-simple-text", status)], None).is_good(),
                "{status:?}"
            );
        }
        let report = judged(&[], None);
        assert_eq!(
            (report.score(), report.rows[0].text.as_str()),
            ((0, 1), "was not run")
        );
    }

    #[test]
    fn an_unscored_failure_that_nobody_expects_fails_the_run() {
        let scenarios = [
            scenario("tools-call-simple-text", Status::Success),
            scenario("new", Status::Failure),
        ];
        let report = judged(&scenarios, None);
        assert!(!report.is_good());
        assert_eq!(report.score(), (1, 1));
        assert!(table("t", &report).contains("FAIL new "));
    }
}
