//! `mcpgw doctor`: looks at everything that has to be in order for a gateway to work, and gives each a verdict and, where
//! it is wrong, what mends it. Evidence is gathered first; the checks are pure functions over it.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::{
    cluster::{self, NoClusterError},
    output::{self, Format, OutputError, Tone},
    remedy::Remedy,
};

mod access;
mod admission;
mod evidence;
mod gateways;
mod install;
mod servers;

use evidence::Evidence;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Wrong; something does not work.
    Problem,
    /// It works, but should be looked at.
    Warning,
    /// Not looked at, for want of permission or because something before it is wrong.
    Unknown,
    /// In order.
    Good,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Good => "ok",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Problem => Tone::Bad,
            Self::Warning | Self::Unknown => Tone::Doubtful,
            Self::Good => Tone::Good,
        }
    }
}

/// One verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// What was looked at: `crds`, `operator`, `webhook`, `certificate`, `rbac`, `gateway`, `grant`, `filter`, `names`, …
    pub check: &'static str,
    /// `<kind> <namespace>/<name>`, or empty.
    pub object: String,
    /// What is the case.
    pub message: String,
    /// What mends it; empty when nothing is wrong.
    pub fix: String,
}

impl Finding {
    fn good(check: &'static str, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Good,
            check,
            object: object.into(),
            message: message.into(),
            fix: String::new(),
        }
    }

    fn bad(
        verdict: Verdict,
        check: &'static str,
        object: impl Into<String>,
        (message, fix): (impl Into<String>, impl Into<String>),
    ) -> Self {
        Self {
            verdict,
            check,
            object: object.into(),
            message: message.into(),
            fix: fix.into(),
        }
    }

    fn of(object: impl Into<String>, remedy: Remedy) -> Self {
        Self::bad(
            Verdict::Problem,
            remedy.check,
            object,
            (remedy.message, remedy.fix),
        )
    }
}

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Also says what is in order.
    #[arg(long, short)]
    pub all: bool,
    /// How the verdicts are printed.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The cluster cannot be reached.
    #[error(transparent)]
    Cluster(#[from] NoClusterError),
    /// The output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Doctor {
    /// Looks and prints. The exit code is 1 when there is a problem, else 0.
    ///
    /// # Errors
    /// [`DoctorError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, DoctorError> {
        let busy = output::spinner("Looking at the cluster");
        let client = cluster::connect().await?;
        let evidence = Evidence::gather(&client).await;
        busy.finish_and_clear();
        let findings = judge(&evidence);
        let document = json!(findings.iter().map(as_json).collect::<Vec<_>>());
        if output::document(out, self.output, &document)?.is_none() {
            self.print(out, &findings).map_err(OutputError::from)?;
        }
        Ok(u8::from(
            findings.iter().any(|finding| finding.verdict == Verdict::Problem),
        ))
    }

    fn print(&self, out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
        let shown = findings
            .iter()
            .filter(|finding| self.all || finding.verdict != Verdict::Good);
        for finding in shown {
            let word = output::painted_text(finding.verdict.as_str(), finding.verdict.tone());
            writeln!(
                out,
                "{word} [{}] {}: {}",
                finding.check, finding.object, finding.message
            )?;
            if !finding.fix.is_empty() {
                writeln!(out, "    to mend it: {}", finding.fix)?;
            }
        }
        let count = |verdict| {
            findings
                .iter()
                .filter(|finding| finding.verdict == verdict)
                .count()
        };
        writeln!(
            out,
            "{} problems, {} warnings, {} not looked at, {} in order",
            count(Verdict::Problem),
            count(Verdict::Warning),
            count(Verdict::Unknown),
            count(Verdict::Good)
        )
    }
}

/// Every verdict, the worst first. Pure.
fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings: Vec<Finding> = evidence
        .snapshot
        .unreadable()
        .map(|(kind, why)| {
            let fix = "run it as somebody who may list this kind in all namespaces";
            Finding::bad(Verdict::Unknown, "access", kind, (why, fix))
        })
        .collect();
    findings.extend(install::check(evidence));
    findings.extend(admission::check(evidence));
    findings.extend(access::check(evidence));
    findings.extend(gateways::check(evidence));
    findings.extend(servers::check(evidence));
    findings.sort_by_key(|finding| finding.verdict);
    // Two configurations may name one Service.
    findings.dedup();
    findings
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "verdict": finding.verdict.as_str(),
        "check": finding.check,
        "object": finding.object,
        "message": finding.message,
        "fix": finding.fix,
    })
}

#[cfg(test)]
mod tests;
