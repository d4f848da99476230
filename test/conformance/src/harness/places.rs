//! Where the suites are run. Each place gives a URL and, where it can, what the fixture saw.

use std::path::Path;

use anyhow::Context as _;

use crate::fixture::{self, Entry, EraChoice, Journal, Options, ReplyForm};

use super::baseline::Baseline;
use super::gateway::{Behind, Front, Gateway};
use super::install::Tools;
use super::report::{self, Expectation, Report};
use super::suite::{self, Suite};

/// What is common to all runs of one command.
pub(crate) struct Plan<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) suites: &'a [Suite],
    pub(crate) results: &'a Path,
}

/// A judged run.
pub(crate) struct Outcome {
    pub(crate) place: String,
    pub(crate) suite: Suite,
    pub(crate) report: Report,
}

/// One run to be made.
struct Run<'a> {
    /// Name of the place, also in results.
    place: &'a str,
    /// Its section in the baseline.
    baseline: &'a str,
    url: &'a str,
    suite: Suite,
}

impl Plan<'_> {
    /// Runs a suite and judges it by what `journal` gives afterwards.
    async fn run(
        &self,
        run: &Run<'_>,
        journal: impl Fn() -> anyhow::Result<Option<Vec<Entry>>>,
    ) -> anyhow::Result<Outcome> {
        let scored = run.suite.scored(self.tools)?;
        let baseline = Baseline::load(run.baseline, run.suite.name(), &scored)?;
        report::progress(&format!("{} ({})", run.suite.title(), run.place));
        let results = self.results.join(run.place).join(run.suite.name());
        let results = std::path::absolute(results)?;
        let scenarios = suite::run(self.tools, run.suite, run.url, &results).await?;
        let journal = journal()?;
        if let Some(entries) = &journal {
            let lines: Vec<_> = entries
                .iter()
                .filter_map(|entry| serde_json::to_string(entry).ok())
                .collect();
            std::fs::write(results.join("journal.jsonl"), lines.join("\n"))
                .context("cannot keep the journal")?;
        }
        let gateway = run.baseline != "direct";
        let expected = Expectation {
            scored: &scored,
            baseline: &baseline,
            journal: journal.as_deref(),
            gateway,
        };
        let report = report::judge(&scenarios, &expected);
        report::print(&report::table(
            &format!("{}, {}", run.suite.title(), run.place),
            &report,
        ));
        Ok(Outcome {
            place: run.place.to_owned(),
            suite: run.suite,
            report,
        })
    }
}

impl Plan<'_> {
    /// The outcome of a run that could not begin.
    fn not_run(&self, run: &Run<'_>, why: &anyhow::Error) -> anyhow::Result<Outcome> {
        let scored = run.suite.scored(self.tools)?;
        let text = format!(
            "\n{}, {}\n  FAIL not run: {why:#}\n",
            run.suite.title(),
            run.place
        );
        report::print(&text);
        let report = report::judge(
            &[],
            &Expectation {
                scored: &scored,
                baseline: &Baseline::default(),
                journal: None,
                gateway: true,
            },
        );
        Ok(Outcome {
            place: run.place.to_owned(),
            suite: run.suite,
            report,
        })
    }
}

/// Directly against the fixture, in both forms of its replies.
pub(crate) async fn direct(plan: &Plan<'_>) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (form, reply) in FORMS {
        let fixture = fixture::start(Options {
            reply,
            ..Options::default()
        })
        .await
        .context("cannot start the fixture")?;
        for suite in plan.suites {
            fixture.journal.clear();
            let run = Run {
                place: &format!("direct{form}"),
                baseline: "direct",
                url: &fixture.url(),
                suite: *suite,
            };
            outcomes.push(plan.run(&run, || Ok(Some(fixture.journal.entries()))).await?);
        }
    }
    Ok(outcomes)
}

/// Both forms of the fixture's replies, and what is added to the name of a place.
const FORMS: [(&str, ReplyForm); 2] = [("", ReplyForm::Auto), ("-sse", ReplyForm::Sse)];

/// Through a gateway that is started for each suite, so that no suite sees what another left.
pub(crate) async fn gateway(
    plan: &Plan<'_>,
    front: Front,
    upstream: Option<EraChoice>,
    flags: &[String],
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let name = match front {
        Front::Envoy => "gateway",
        Front::Direct => "gateway-direct",
        Front::Standalone => "standalone",
    };
    for (form, reply) in FORMS {
        let place = format!("{name}{form}");
        for suite in plan.suites {
            let own = if suite.is_modern() {
                EraChoice::Modern
            } else {
                EraChoice::Legacy
            };
            let options = Options {
                era: upstream.unwrap_or(own),
                reply,
                ..Options::default()
            };
            outcomes.push(through_gateway((plan, front), *suite, (&place, options), flags).await?);
        }
    }
    Ok(outcomes)
}

async fn through_gateway(
    (plan, front): (&Plan<'_>, Front),
    suite: Suite,
    (place, fixture): (&str, Options),
    flags: &[String],
) -> anyhow::Result<Outcome> {
    let run = |url| Run {
        place,
        baseline: "gateway",
        url,
        suite,
    };
    let gateway = match Gateway::start(front, vec![Behind::only(fixture)], flags).await {
        Ok(gateway) => gateway,
        Err(error) => return plan.not_run(&run(""), &error),
    };
    if let Some(journal) = gateway.journal() {
        journal.clear();
    }
    let outcome = plan
        .run(&run(&gateway.url()), || {
            Ok(gateway.journal().map(Journal::entries))
        })
        .await?;
    gateway
        .keep_log(&plan.results.join(place).join(suite.name()).join("envoy.txt"))
        .await?;
    Ok(outcome)
}

/// Keeps a gateway up for other clients. Its address is printed.
pub(crate) async fn serve(era: EraChoice, flags: &[String]) -> anyhow::Result<()> {
    let fixture = Options {
        era,
        ..Options::default()
    };
    let gateway = Gateway::start(Front::Envoy, vec![Behind::only(fixture)], flags).await?;
    report::print(&format!("listening on {}\n", gateway.url()));
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Against an address that somebody else serves.
pub(crate) async fn url(
    plan: &Plan<'_>,
    url: &str,
    fixture_log: Option<&Path>,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for suite in plan.suites {
        let read =
            |path: &Path| Journal::read(path).with_context(|| format!("cannot read {}", path.display()));
        let before = fixture_log
            .map(read)
            .transpose()?
            .map_or(0, |entries| entries.len());
        let run = Run {
            place: "url",
            baseline: "gateway",
            url,
            suite: *suite,
        };
        let journal = || {
            Ok(fixture_log
                .map(read)
                .transpose()?
                .map(|entries| entries.into_iter().skip(before).collect()))
        };
        outcomes.push(plan.run(&run, journal).await?);
    }
    Ok(outcomes)
}
