//! The flag table and the reading of words into raw values. Which values are good is decided in `validate`.

use super::{Command, validate};
use std::collections::HashMap;

/// Why the start is refused. The text is one line; exit code 2.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    /// Not in the table.
    #[error("unknown flag --{0}; see --help")]
    Unknown(String),
    /// In the table of former flags.
    #[error("flag --{flag} was removed; {replacement}")]
    Removed {
        /// The flag.
        flag: &'static str,
        /// What to do instead.
        replacement: &'static str,
    },
    /// A flag that needs a value stands last.
    #[error("flag --{0} needs a value")]
    MissingValue(&'static str),
    /// The value is not one of the accepted ones.
    #[error("flag --{flag}: {accepted}")]
    BadValue {
        /// The flag or variable.
        flag: &'static str,
        /// What is accepted; never the value itself, it may be a secret.
        accepted: String,
    },
    /// Other words after `example-server`.
    #[error("usage: mcp-gateway-broker example-server [--http <host>:<port>]")]
    Example,
    /// A word that is no flag.
    #[error("unexpected argument; flags begin with --, and `run` may only be the first word")]
    Argument,
}

/// One row of the flag table.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) boolean: bool,
    /// False: accepted and validated, its feature is not in this build, and the start log says so when it is given.
    pub(super) built: bool,
    help: &'static str,
}

const fn flag(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        boolean: false,
        built: true,
        help,
    }
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        boolean: true,
        built: true,
        help,
    }
}

const fn not_built(row: Flag) -> Flag {
    Flag { built: false, ..row }
}

pub(super) const FLAGS: &[Flag] = &[
    flag("mcp-gateway-config", "config file, watched (also --config)"),
    flag(
        "mcp-gateway-config-secret",
        "<namespace>/<name> of the Secret to watch; the file stays the fallback",
    ),
    flag("mcp-gateway-public-host", "host that clients use"),
    flag(
        "mcp-gateway-private-host",
        "hairpin target, [http://|https://]host[:port]",
    ),
    flag("gateway-ca-cert", "PEM file trusted for the hairpin"),
    flag(
        "mcp-broker-public-address",
        "bind address of the broker (0.0.0.0:8080; without Envoy 127.0.0.1:8080)",
    ),
    flag("mcp-router-address", "bind address of the router (0.0.0.0:50051)"),
    flag(
        "metrics-addr",
        "bind address of the admin listener (0.0.0.0:9090; without Envoy 127.0.0.1:9090); empty turns it off",
    ),
    not_built(switch("enable-pprof", "/debug/pprof on localhost:6060")),
    flag(
        "gateway-signing-key",
        "HMAC key, at least 32 bytes (also --session-signing-key, env GATEWAY_SIGNING_KEY)",
    ),
    flag("session-length", "minutes that a client session lives (1440)"),
    flag(
        "cache-connection-string",
        "redis:// or rediss:// URL of the shared session store (env CACHE_CONNECTION_STRING)",
    ),
    flag("mcp-check-interval", "seconds between checks of a server (60)"),
    flag(
        "mcp-broker-write-timeout",
        "write timeout in seconds of replies that are not streams (0)",
    ),
    flag("max-request-body-size", "bytes (5242880)"),
    switch(
        "enforce-capability-filtering",
        "lists are empty without a valid x-mcp-authorized",
    ),
    flag("invalid-tool-policy", "FilterOut or RejectServer"),
    switch("discovery-tools-enabled", "meta-tools (true)"),
    flag(
        "discovery-tool-threshold",
        "list meta-tools only above this many tools (0)",
    ),
    switch("enable-url-elicitation", "per-user tokens by URL"),
    flag(
        "allowed-origins",
        "comma list added to the built-in origins; * allows all",
    ),
    flag(
        "ext-proc-message-timeout",
        "seconds that the Envoy filter waits (10)",
    ),
    flag(
        "ext-proc-max-message-timeout",
        "upper bound in seconds of timer extensions (60)",
    ),
    flag(
        "bridge-wait",
        "seconds to wait for a client's answer in a bridge (60, at most 300)",
    ),
    flag("page-size", "items in one page of a list (1000)"),
    switch("standalone", "serve /mcp without Envoy, as `run` does"),
    flag("data-path", "ext-proc or direct"),
    flag("log-level", "-4 debug, 0 info, 4 warn, 8 error, or the word"),
    flag("log-format", "txt or json"),
    switch("version", "print the version"),
    switch("help", "print this text"),
];

const ALIASES: &[(&str, &str)] = &[
    ("config", "mcp-gateway-config"),
    ("session-signing-key", "gateway-signing-key"),
    ("h", "help"),
    ("v", "version"),
];

const REMOVED: &[(&str, &str)] = &[
    (
        "mcp-router-key",
        "router and broker share GATEWAY_SIGNING_KEY, accepted values: none",
    ),
    (
        "controller",
        "the operator is a program of its own, mcp-gateway-operator; accepted values: none",
    ),
    (
        "enforce-tool-filtering",
        "use --enforce-capability-filtering[=true|false]",
    ),
];

/// Raw values by flag name, the last one wins.
pub(super) type RawFlags = HashMap<&'static str, String>;

/// Reads the words after the program's name. `env` looks up one environment variable.
///
/// # Errors
/// [`FlagError`], one line, for which the process ends with exit code 2.
pub fn parse<I>(words: I, env: &dyn Fn(&str) -> Option<String>) -> Result<Command, FlagError>
where
    I: IntoIterator<Item = String>,
{
    let mut words = words.into_iter().peekable();
    if words.next_if(|word| word == "example-server").is_some() {
        return example(words);
    }
    if words.next_if(|word| word == super::CHILD_OF).is_some() {
        return match (words.next(), words.next()) {
            (Some(parent), Some(program)) => Ok(Command::Child(parent, program, words.collect())),
            _ => Err(FlagError::Example),
        };
    }
    let raw = read_words(words)?;
    if raw.get("help").is_some_and(|value| value == "true") {
        return Ok(Command::Print(help()));
    }
    if raw.get("version").is_some_and(|value| value == "true") {
        return Ok(Command::Print(format!("mcp-gateway-broker {}", crate::VERSION)));
    }
    validate::options(&raw, env).map(|options| Command::Run(Box::new(options)))
}

/// `example-server [--http ADDRESS]`
fn example(mut words: impl Iterator<Item = String>) -> Result<Command, FlagError> {
    match (words.next().as_deref(), words.next(), words.next()) {
        (None, ..) => Ok(Command::Example(None)),
        (Some("--http"), Some(address), None) => Ok(Command::Example(Some(address))),
        _ => Err(FlagError::Example),
    }
}

fn read_words<I: IntoIterator<Item = String>>(words: I) -> Result<RawFlags, FlagError> {
    let mut raw = RawFlags::new();
    let mut words = words.into_iter().peekable();
    if words.next_if(|word| word == "run").is_some() {
        raw.insert("standalone", "true".to_owned());
    }
    while let Some(word) = words.next() {
        let body = word
            .strip_prefix("--")
            .or_else(|| word.strip_prefix('-'))
            .ok_or(FlagError::Argument)?;
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let row = find(name)?;
        let value = match inline {
            Some(value) => value,
            None if row.boolean => "true".to_owned(),
            None => words.next().ok_or(FlagError::MissingValue(row.name))?,
        };
        if row.boolean && !matches!(value.as_str(), "true" | "false") {
            return Err(FlagError::BadValue {
                flag: row.name,
                accepted: "accepted values: true, false".to_owned(),
            });
        }
        raw.insert(row.name, value);
    }
    Ok(raw)
}

fn find(name: &str) -> Result<&'static Flag, FlagError> {
    if let Some((flag, replacement)) = REMOVED.iter().find(|(flag, _)| *flag == name) {
        return Err(FlagError::Removed { flag, replacement });
    }
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, name)| *name);
    FLAGS
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| FlagError::Unknown(shown(name)))
}

/// A flag name as it may be printed: a mistyped secret does not end in the log in full.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .take(40)
        .collect()
}

fn help() -> String {
    let mut text = format!(
        "mcp-gateway-broker {}\n\nUsage: mcp-gateway-broker run --config <file> [flags]   a gateway without Envoy and cluster\n       \
         mcp-gateway-broker [flags]                       broker and router behind an Envoy\n       \
         mcp-gateway-broker example-server [--http <host>:<port>]\n\n",
        crate::VERSION
    );
    for row in FLAGS {
        let note = if row.built {
            ""
        } else {
            " [accepted, not in this build]"
        };
        text.push_str(&format!("  --{:<30} {}{note}\n", row.name, row.help));
    }
    text
}
