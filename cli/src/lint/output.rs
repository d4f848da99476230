//! Findings as text, JSON and SARIF 2.1.0.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde_json::{Value, json};

use super::{Finding, Format};

pub(super) fn write(out: &mut impl Write, format: Format, findings: &[Finding]) -> io::Result<()> {
    match format {
        Format::Text => findings
            .iter()
            .try_for_each(|finding| writeln!(out, "{}", line(finding))),
        Format::Json => writeln!(out, "{:#}", json(findings)),
        Format::Sarif => writeln!(out, "{:#}", sarif(findings)),
    }
}

fn line(finding: &Finding) -> String {
    let Finding {
        file,
        line,
        level,
        rule,
        object,
        message,
    } = finding;
    format!("{file}:{line}: {}: {object}: {message} [{rule}]", level.as_str())
}

fn json(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({"file": finding.file, "line": finding.line, "level": finding.level.as_str(), "rule": finding.rule,
            "object": finding.object, "message": finding.message})
    };
    findings.iter().map(one).collect()
}

fn sarif(findings: &[Finding]) -> Value {
    let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule).collect();
    let rules: Vec<Value> = rules.into_iter().map(|rule| json!({"id": rule})).collect();
    let one = |finding: &Finding| {
        json!({"ruleId": finding.rule, "level": finding.level.as_str(),
            "message": {"text": format!("{}: {}", finding.object, finding.message)},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": finding.file}, "region": {"startLine": finding.line}}}]})
    };
    let results: Vec<Value> = findings.iter().map(one).collect();
    json!({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "mcpgw lint", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results}]})
}
