//! The answer of `mcpgw explain` as text and as JSON.

use std::io::{self, Write};

use mcp_gateway_api::authorization::Outcome;
use serde_json::{Value, json};

use super::Explanation;

/// As text, for the item `name`.
pub(super) fn text(out: &mut impl Write, name: &str, explanation: &Explanation) -> io::Result<()> {
    let verdict = if explanation.outcome.permits() {
        "allowed"
    } else {
        "denied"
    };
    writeln!(out, "{verdict}: {name}")?;
    let by = match &explanation.outcome {
        Outcome::Open => "no policy concerns it".to_owned(),
        decided => decided.to_string(),
    };
    writeln!(out, "  decided by: {by}")?;
    writeln!(out, "  extension:  {}", explanation.extension)?;
    let policies = explanation.policies.join(", ");
    writeln!(
        out,
        "  policies:   {}",
        if policies.is_empty() { "none" } else { &policies }
    )?;
    for note in &explanation.notes {
        writeln!(out, "  note:       {note}")?;
    }
    for change in &explanation.changes {
        writeln!(out, "  to change:  {change}")?;
    }
    Ok(())
}

/// As one object.
pub(super) fn json(explanation: &Explanation) -> Value {
    json!({
        "allowed": explanation.outcome.permits(),
        "decidedBy": explanation.outcome.to_string(),
        "extension": explanation.extension.to_string(),
        "policies": explanation.policies,
        "notes": explanation.notes,
        "changes": explanation.changes,
    })
}
