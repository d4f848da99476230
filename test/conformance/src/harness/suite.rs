//! The four targets C1–C4 and one run of one of them: which command, which scenarios count.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use super::install::{Tools, Version};
use super::verdict::{self, Scenario};

/// Longest run of a whole suite; the longest good one takes half a minute.
const RUN_TIME: Duration = Duration::from_secs(300);

/// What has to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Suite {
    /// The scored server scenarios of 2025-11-25.
    C1,
    /// The scored server scenarios of 2026-07-28.
    C2,
    /// The active suite of 0.1.16.
    C3,
    /// `http-header-validation`, which the suite does not score yet.
    C4,
}

impl Suite {
    pub(crate) const ALL: [Self; 4] = [Self::C1, Self::C2, Self::C3, Self::C4];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::C1 => "c1",
            Self::C2 => "c2",
            Self::C3 => "c3",
            Self::C4 => "c4",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::C1 => "C1: 0.2.0-alpha.12, requirements 2025-11-25",
            Self::C2 => "C2: 0.2.0-alpha.12, requirements 2026-07-28",
            Self::C3 => "C3: 0.1.16, active suite",
            Self::C4 => "C4: 0.2.0-alpha.12, http-header-validation",
        }
    }

    /// Whether its clients are of the era without sessions.
    pub(crate) fn is_modern(self) -> bool {
        matches!(self, Self::C2 | Self::C4)
    }

    fn version(self) -> Version {
        if self == Self::C3 {
            Version::V01
        } else {
            Version::V02
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::C1 => &["--requirements", "2025-11-25"],
            Self::C2 => &["--requirements", "2026-07-28"],
            Self::C3 => &[],
            Self::C4 => &[
                "--scenario",
                "http-header-validation",
                "--spec-version",
                "2026-07-28",
            ],
        }
    }

    /// The scenarios that must pass, from the lists that the suite itself froze. 0.1.16 has none: its active suite is the
    /// list of 2025-11-25.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(crate) fn scored(self, tools: &Tools) -> anyhow::Result<BTreeSet<String>> {
        let revision = match self {
            Self::C1 | Self::C3 => "2025-11-25",
            Self::C2 => "2026-07-28",
            Self::C4 => return Ok(BTreeSet::from(["http-header-validation".to_owned()])),
        };
        let path = tools
            .package(Version::V02)
            .join(format!("requirements/{revision}.yaml"));
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let list: Requirements =
            serde_saphyr::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
        anyhow::ensure!(
            !list.server.is_empty(),
            "{} lists no server scenarios",
            path.display()
        );
        Ok(list.server)
    }
}

/// The part of a requirements file that is about servers.
#[derive(Debug, Deserialize)]
struct Requirements {
    server: BTreeSet<String>,
}

/// Runs a suite against a URL; what it writes stays in `results`.
///
/// # Errors
/// When the suite cannot be started, takes too long, or leaves no results. Its exit code says nothing: results are judged.
pub(crate) async fn run(
    tools: &Tools,
    suite: Suite,
    url: &str,
    results: &Path,
) -> anyhow::Result<Vec<Scenario>> {
    if results.exists() {
        std::fs::remove_dir_all(results).with_context(|| format!("cannot clear {}", results.display()))?;
    }
    std::fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
    let log = std::fs::File::create(results.join("output.txt"))?;
    let mut child = Command::new(&tools.node)
        .arg(tools.package(suite.version()).join("dist/index.js"))
        .args(["server", "--url", url])
        .args(suite.arguments())
        .arg("-o")
        .arg(results)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the suite")?;
    tokio::time::timeout(RUN_TIME, child.wait())
        .await
        .with_context(|| format!("{} did not end within {RUN_TIME:?}", suite.name()))??;
    let scenarios = verdict::read(results)?;
    anyhow::ensure!(
        !scenarios.is_empty(),
        "{} left no results; see {}/output.txt",
        suite.name(),
        results.display()
    );
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_whatever_else_the_file_holds() {
        let text = "server:\n  - ping\n  - tools-list\nclient:\n  - initialize\nnot_scored:\n  - scenario: x\n    leg: server\n";
        let list: Requirements = serde_saphyr::from_str(text).unwrap();
        assert_eq!(
            list.server.into_iter().collect::<Vec<_>>(),
            ["ping", "tools-list"]
        );
    }
}
