//! The merge of the broker container's `command`: our flags first, then everything of the user's, verbatim and in
//! order (operator.md 6.3). Pure. Invariant: a token is dropped only when its exact flag name is one that we emit
//! now or have recorded as emitted before, or when it is the separate value of such a flag.

use std::collections::BTreeSet;

/// Flags that an install without the owned-flags annotation is assumed to have emitted (operator.md 5.2).
const UNRECORDED: [&str; 7] = [
    "--mcp-broker-public-address",
    "--mcp-gateway-private-host",
    "--mcp-gateway-config",
    "--mcp-check-interval",
    "--mcp-gateway-public-host",
    "--enable-url-elicitation",
    "--mcp-router-key",
];

/// Owned flags that stand alone: the token after them is never their value.
const WITHOUT_VALUE: [&str; 1] = ["enable-url-elicitation"];

/// One flag that the operator emits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// Name with its two dashes.
    pub(crate) name: &'static str,
    /// Value, written as `--name=value`; `None` for a switch.
    pub(crate) value: Option<String>,
}

impl Flag {
    pub(crate) fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self {
            name,
            value: Some(value.into()),
        }
    }

    pub(crate) fn switch(name: &'static str) -> Self {
        Self { name, value: None }
    }

    fn token(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// The command to write and the annotation that records which flags in it are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MergedCommand {
    /// Element 0 and all flags.
    pub(crate) command: Vec<String>,
    /// Value of the owned-flags annotation: sorted, comma-separated.
    pub(crate) owned_flags: String,
}

/// Merges `ours` into the `live` command; `recorded` is the owned-flags annotation of the live Deployment.
pub(crate) fn merge(
    program: &str,
    ours: &[Flag],
    live: Option<&[String]>,
    recorded: Option<&str>,
) -> MergedCommand {
    let emitted: BTreeSet<&str> = ours.iter().map(|flag| flag.name).collect();
    let mut command = vec![program.to_owned()];
    command.extend(ours.iter().map(Flag::token));
    if let Some((_, tokens)) = live.and_then(<[String]>::split_first) {
        let owned = owned_names(&emitted, recorded);
        command.extend(users_tokens(tokens, &owned));
    }
    MergedCommand {
        command,
        owned_flags: emitted.into_iter().collect::<Vec<_>>().join(","),
    }
}

/// Names, with two dashes, of flags of ours that `args` repeats: a warning, because `args` is the user's.
pub(crate) fn repeated_in_args(ours: &[Flag], args: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> = args.iter().filter_map(|token| flag_name(token)).collect();
    ours.iter()
        .filter(|flag| names.contains(bare(flag.name)))
        .map(|flag| flag.name.to_owned())
        .collect()
}

/// The value that the user's own flag `name` (with two dashes) has in `command`, in either form.
pub(crate) fn value_of<'a>(command: &'a [String], name: &str) -> Option<&'a str> {
    let mut tokens = command.iter().peekable();
    let mut found = None;
    while let Some(token) = tokens.next() {
        if flag_name(token) != Some(bare(name)) {
            continue;
        }
        found = match token.split_once('=') {
            Some((_, value)) => Some(value),
            None => tokens.peek().map(|next| next.as_str()),
        };
    }
    found
}

fn owned_names<'a>(emitted: &BTreeSet<&'a str>, recorded: Option<&'a str>) -> BTreeSet<&'a str> {
    let before: Vec<&str> = match recorded {
        Some(list) => list.split(',').map(str::trim).collect(),
        None => UNRECORDED.to_vec(),
    };
    emitted
        .iter()
        .copied()
        .chain(before)
        .map(bare)
        .filter(|name| !name.is_empty())
        .collect()
}

fn users_tokens(tokens: &[String], owned: &BTreeSet<&str>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut value_of_dropped = false;
    for token in tokens {
        let is_value = std::mem::take(&mut value_of_dropped) && is_value(token);
        if is_value {
            continue;
        }
        match flag_name(token) {
            Some(name) if owned.contains(name) => {
                value_of_dropped = !token.contains('=') && !WITHOUT_VALUE.contains(&name);
            }
            _ => kept.push(token.clone()),
        }
    }
    kept
}

/// A token that can be the separate value of the flag before it; `-4` is one, because levels are negative numbers.
fn is_value(token: &str) -> bool {
    !token.starts_with('-') || token.parse::<f64>().is_ok()
}

/// The flag's name without dashes (`-x` and `--x` are the same flag to the broker), or nothing for other tokens.
fn flag_name(token: &str) -> Option<&str> {
    let name = token.strip_prefix("--").or_else(|| token.strip_prefix('-'))?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    (!name.is_empty() && token.parse::<f64>().is_err()).then_some(name)
}

fn bare(name: &str) -> &str {
    name.trim_start_matches('-')
}

#[cfg(test)]
mod tests;
