//! What a suite found: one folder per scenario, in it `checks.json`. Judged is the scenario, never a total: a failing scenario
//! still contributes passed checks.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Success,
    Failure,
    Warning,
    Skipped,
    Info,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) error_message: Option<String>,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) checks: Vec<Check>,
}

/// How a scenario ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// Passed, but something that servers should do was missed.
    Warned,
    /// Nothing was checked.
    Skipped,
}

impl Scenario {
    pub(crate) fn verdict(&self) -> Verdict {
        if self.count(Status::Failure) > 0 {
            Verdict::Failed
        } else if self.count(Status::Warning) > 0 {
            Verdict::Warned
        } else if self.count(Status::Success) > 0 {
            Verdict::Passed
        } else {
            Verdict::Skipped
        }
    }

    pub(crate) fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }

    /// The checks that make it less than passed.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(|check| matches!(check.status, Status::Failure | Status::Warning))
    }
}

/// Reads the results of a run, by name.
///
/// # Errors
/// When a file cannot be read or is not what the suite writes.
pub(crate) fn read(results: &Path) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for entry in std::fs::read_dir(results).with_context(|| format!("cannot read {}", results.display()))? {
        let path = entry?.path();
        let file = path.join("checks.json");
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(scenario_name)
        else {
            continue;
        };
        if !file.is_file() {
            continue;
        }
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let checks =
            serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", file.display()))?;
        scenarios.push(Scenario {
            name: name.to_owned(),
            checks,
        });
    }
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scenarios)
}

/// The scenario of a folder `server-<scenario>-<date>T<time>Z`.
fn scenario_name(folder: &str) -> Option<&str> {
    let rest = folder.strip_prefix("server-")?;
    let (before, _time) = rest.rsplit_once('T')?;
    // Of `<scenario>-2026-11-21`, the last three parts are the date.
    let mut parts = before.rsplitn(4, '-');
    let date = parts
        .by_ref()
        .take(3)
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    parts.next().filter(|_| date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(statuses: &[Status]) -> Scenario {
        let check = |status: &Status| Check {
            id: "c".into(),
            status: *status,
            error_message: None,
        };
        Scenario {
            name: "s".into(),
            checks: statuses.iter().map(check).collect(),
        }
    }

    #[test]
    fn one_failure_fails_the_scenario_whatever_else_passed() {
        use Status::{Failure, Info, Skipped, Success, Warning};
        assert_eq!(scenario(&[Success, Failure, Success]).verdict(), Verdict::Failed);
        assert_eq!(scenario(&[Success, Warning]).verdict(), Verdict::Warned);
        assert_eq!(scenario(&[Success, Info]).verdict(), Verdict::Passed);
        assert_eq!(scenario(&[Info, Skipped]).verdict(), Verdict::Skipped);
        assert_eq!(scenario(&[]).verdict(), Verdict::Skipped);
    }

    #[test]
    fn folders_carry_the_name_of_their_scenario() {
        assert_eq!(
            scenario_name("server-ping-2026-11-21T08-46-40-926Z"),
            Some("ping")
        );
        let long = "server-elicitation-sep1034-defaults-2026-11-21T08-46-41-583Z";
        assert_eq!(scenario_name(long), Some("elicitation-sep1034-defaults"));
        assert_eq!(scenario_name("output.txt"), None);
        assert_eq!(scenario_name("server-xT"), None);
    }

    #[test]
    fn results_are_read_from_the_folders_of_the_suite() {
        let results = tempfile::tempdir().unwrap();
        let folder = results.path().join("server-ping-2026-11-21T08-46-40-926Z");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(results.path().join("output.txt"), "noise").unwrap();
        let text = r#"[{"id": "ping", "status": "FAILURE", "errorMessage": "why", "details": {}}]"#;
        std::fs::write(folder.join("checks.json"), text).unwrap();
        let read = read(results.path()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].name.as_str(), read[0].verdict()),
            ("ping", Verdict::Failed)
        );
    }
}
