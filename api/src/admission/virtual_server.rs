//! Rules for a virtual server that the schema cannot express.

use std::collections::BTreeSet;

use super::{Kind, Verdict, Violation};
use crate::virtual_server::MCPVirtualServer;

pub(super) fn judge(new: &MCPVirtualServer) -> Verdict {
    let prompts = new.spec.prompts.as_deref().unwrap_or_default();
    let violations = [
        ("spec.tools", new.spec.tools.as_slice()),
        ("spec.prompts", prompts),
    ]
    .into_iter()
    .flat_map(|(field, names)| duplicates(field, names))
    .collect();
    Verdict::deny(violations)
}

fn duplicates(field: &str, names: &[String]) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    names
        .iter()
        .enumerate()
        .filter(|(_, name)| !seen.insert(name.as_str()))
        .map(|(index, name)| {
            Violation::new(
                "duplicate-name",
                format!("{field}[{index}]"),
                Kind::VirtualServer.invalid(),
                format!("{name:?} is listed twice; remove one"),
            )
        })
        .collect()
}
