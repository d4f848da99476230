//! `baseline.yml`: what may fail, per place and suite. Only scenarios that are not scored may stand in it, and what does not
//! fail any more must leave it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::verdict::Scenario;

const TEXT: &str = include_str!("../../baseline.yml");

/// Why the file is not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BaselineError {
    #[error("baseline.yml is not valid: {0}")]
    Yaml(String),
    #[error("baseline.yml: {0} is scored and must pass")]
    Scored(String),
}

/// place → suite → entries `scenario` or `scenario:check-id`.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct File(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

/// The entries for one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Baseline {
    entries: BTreeSet<String>,
}

impl Baseline {
    /// The entries for a place and a suite.
    ///
    /// # Errors
    /// When the file is not valid or names a scored scenario.
    pub(crate) fn load(place: &str, suite: &str, scored: &BTreeSet<String>) -> Result<Self, BaselineError> {
        Self::parse(TEXT, place, suite, scored)
    }

    fn parse(text: &str, place: &str, suite: &str, scored: &BTreeSet<String>) -> Result<Self, BaselineError> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|error| BaselineError::Yaml(error.to_string()))?;
        let entries = file
            .0
            .get(place)
            .and_then(|suites| suites.get(suite))
            .cloned()
            .unwrap_or_default();
        match entries.iter().find(|entry| scored.contains(scenario_of(entry))) {
            Some(entry) => Err(BaselineError::Scored(entry.clone())),
            None => Ok(Self { entries }),
        }
    }

    /// The failing checks of a scenario that are not expected.
    pub(crate) fn unexpected(&self, scenario: &Scenario) -> Vec<String> {
        let failing = scenario
            .complaints()
            .map(|check| format!("{}:{}", scenario.name, check.id));
        failing
            .filter(|id| !self.entries.contains(id) && !self.entries.contains(&scenario.name))
            .collect()
    }

    /// The entries that nothing failed for.
    pub(crate) fn stale(&self, scenarios: &[Scenario]) -> Vec<&str> {
        let mut failing = BTreeSet::new();
        for scenario in scenarios {
            for check in scenario.complaints() {
                failing.insert(format!("{}:{}", scenario.name, check.id));
                failing.insert(scenario.name.clone());
            }
        }
        self.entries
            .iter()
            .filter(|entry| !failing.contains(*entry))
            .map(String::as_str)
            .collect()
    }
}

fn scenario_of(entry: &str) -> &str {
    entry.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{Check, Status};
    use super::*;

    fn failing(name: &str, check: &str) -> Scenario {
        let check = Check {
            id: check.into(),
            status: Status::Failure,
            error_message: None,
        };
        Scenario {
            name: name.into(),
            checks: vec![check],
        }
    }

    const FILE: &str = "direct:\n  c2:\n    - tasks-lifecycle\n    - tasks-x:one\n";

    #[test]
    fn a_scored_scenario_in_the_file_is_refused() {
        let scored = BTreeSet::from(["tasks-x".to_owned()]);
        let refused = Baseline::parse(FILE, "direct", "c2", &scored);
        assert_eq!(refused, Err(BaselineError::Scored("tasks-x:one".into())));
    }

    #[test]
    fn entries_cover_a_scenario_or_one_check() {
        let baseline = Baseline::parse(FILE, "direct", "c2", &BTreeSet::new()).unwrap();
        assert!(baseline.unexpected(&failing("tasks-lifecycle", "any")).is_empty());
        assert!(baseline.unexpected(&failing("tasks-x", "one")).is_empty());
        assert_eq!(baseline.unexpected(&failing("tasks-x", "two")), ["tasks-x:two"]);
    }

    #[test]
    fn what_passes_is_stale() {
        let baseline = Baseline::parse(FILE, "direct", "c2", &BTreeSet::new()).unwrap();
        assert_eq!(baseline.stale(&[failing("tasks-x", "one")]), ["tasks-lifecycle"]);
    }

    #[test]
    fn other_places_and_suites_have_entries_of_their_own() {
        let empty = Baseline::parse(FILE, "gateway", "c2", &BTreeSet::new()).unwrap();
        assert_eq!(empty, Baseline::default());
        assert!(matches!(
            Baseline::parse("- x", "a", "b", &BTreeSet::new()),
            Err(BaselineError::Yaml(_))
        ));
    }
}
