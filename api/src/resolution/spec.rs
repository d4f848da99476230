//! What can be said about a registration's spec alone. The schema says it first; this is for objects that were stored
//! before their CRD had the rule, and keeps what would break a URL or a name out of the config (operator.md 1.2).

use super::Problem;
use crate::registration::MCPServerRegistrationSpec;

/// Longest prefix, path and URL, as in the schema.
const MAX_PREFIX: usize = 64;
const MAX_PATH: usize = 1024;
const MAX_URL: usize = 2048;

/// The first field that is not as it has to be.
pub(super) fn check(spec: &MCPServerRegistrationSpec) -> Result<(), Problem> {
    let invalid = |field: &str, what: &str| Err(Problem::not_ready(format!("invalid: spec.{field}: {what}")));
    let prefix = spec.prefix.as_deref().unwrap_or_default();
    if !is_prefix(prefix) {
        return invalid("prefix", "use up to 64 of a-z, 0-9 and _, the first one not _");
    }
    if spec.user_specific_list.is_enabled() && prefix.is_empty() {
        return invalid("prefix", "is required when userSpecificList is Enabled; set one");
    }
    if !is_path(&spec.path) {
        return invalid("path", "use a path that begins with / and has no space, ? or #");
    }
    let url = spec
        .token_url_elicitation
        .as_ref()
        .and_then(|elicitation| elicitation.url.as_deref());
    let is_url =
        |url: &str| url.len() <= MAX_URL && (url.starts_with("https://") || url.starts_with("http://"));
    if !url.is_none_or(is_url) {
        return invalid(
            "tokenURLElicitation.url",
            "use a URL that begins with https:// or http://",
        );
    }
    Ok(())
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= MAX_PREFIX
        && !prefix.starts_with('_')
        && prefix
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn is_path(path: &str) -> bool {
    let breaks = |character: char| character.is_whitespace() || character == '?' || character == '#';
    path.len() <= MAX_PATH && path.starts_with('/') && !path.contains(breaks)
}
