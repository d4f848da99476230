//! `docs/reference/metrics.md`: every metric that is registered. The names are read from the source of the three places
//! that register any, because a family without a series does not appear in an exposition.

use std::{fmt::Write as _, fs, io, path::Path};

use regex::Regex;

/// Process, prefix of its names, files that register them.
const PLACES: [(&str, &str, &[&str]); 3] = [
    (
        "Broker and router",
        "",
        &[
            "broker/src/telemetry/metrics.rs",
            "broker/src/telemetry/call_metrics.rs",
            "broker/src/telemetry/server_metrics.rs",
            "broker/src/telemetry/session_metrics.rs",
            "broker/src/telemetry/relay_metrics.rs",
        ],
    ),
    ("Operator", "mcp_gateway_", &["operator/src/metrics.rs"]),
    ("Webhook", "mcp_gateway_", &["webhook/src/metrics.rs"]),
];

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As it is registered, with its prefix; an exposition adds `_total` to counters and parts to histograms.
    pub name: String,
    /// What it says.
    pub help: String,
}

/// The metrics of each process.
///
/// # Errors
/// When a source file cannot be read.
pub fn registered(root: &Path) -> io::Result<Vec<(&'static str, Vec<Metric>)>> {
    let mut found = Vec::new();
    for (process, prefix, files) in PLACES {
        let mut metrics = Vec::new();
        for file in files {
            let source = fs::read_to_string(root.join(file))?;
            let product = source.split("#[cfg(test)]").next().unwrap_or_default();
            metrics.extend(of_source(product, prefix));
        }
        found.push((process, metrics));
    }
    Ok(found)
}

/// The calls of `register` in a source: a literal name, then a literal help or the variable `help` set just before.
fn of_source(source: &str, prefix: &str) -> Vec<Metric> {
    let Ok(call) = Regex::new(
        r#"(?:let help = "(?<before>[^"]+)";\s*)?\b\w+\.register\(\s*"(?<name>[a-z_]+)",\s*(?:"(?<help>[^"]+)"|help)"#,
    ) else {
        return Vec::new();
    };
    call.captures_iter(source)
        .filter_map(|captures| {
            let help = captures.name("help").or_else(|| captures.name("before"))?;
            Some(Metric {
                name: format!("{prefix}{}", captures.name("name")?.as_str()),
                help: help.as_str().to_owned(),
            })
        })
        .collect()
}

/// The page.
///
/// # Errors
/// As [`registered`].
pub fn page(root: &Path) -> io::Result<String> {
    let mut text = String::from(
        "# Metrics\n\n<!-- Made from code: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs -->\n\n\
         Names as they are registered: counters are exposed with `_total`, histograms as `_bucket`, `_sum` and `_count`.\n",
    );
    for (process, metrics) in registered(root)? {
        // Writing into a String cannot fail.
        let _ = write!(text, "\n## {process}\n\n| name | meaning |\n|---|---|\n");
        for Metric { name, help } in metrics {
            let _ = writeln!(text, "| `{name}` | {help} |");
        }
    }
    Ok(text)
}
