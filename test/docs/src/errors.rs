//! `docs/reference/errors.md`: every refusal of the gateway's own, read from the places in the sources that make one, with
//! what mends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use regex::Regex;

/// What is nobody else's doing.
const FAULT: &str = "a fault of the gateway: report it with the log";

/// What mends each, by the word in logs and metrics.
const REMEDIES: &[(&str, &str)] = &[
    ("accept", "send `Accept: application/json, text/event-stream`"),
    (
        "authn",
        "send a token of an issuer that `authn` or a policy names; the challenge leads to the metadata",
    ),
    (
        "authn_keys",
        "the keys of the issuer could never be fetched: look at its URL and at the broker's way to it; try again",
    ),
    ("backend_late", "call again; the server is slow to open sessions"),
    (
        "backend_refused",
        "the server's log says why it refuses `initialize`",
    ),
    (
        "backend_unavailable",
        "the server is down, or the way to it is: `mcpgw doctor`, `/status`",
    ),
    (
        "batch",
        "send single messages, or at most 20 in a session of 2025-03-26",
    ),
    ("body", "the connection broke while the body was read"),
    ("body_size", "`--max-request-body-size`, `spec.maxBodyBytes`"),
    ("body_timeout", "the body came too slowly"),
    (
        "busy",
        "wait a second and call again; a replica is at one of its [limits](limits.md)",
    ),
    (
        "calls",
        "wait for calls that run: 64 for a session, 1024 for a server",
    ),
    (
        "changed",
        "call again; the servers changed while the request came",
    ),
    (
        "direct",
        "use the Gateway's address: a call has to pass Envoy. `dataPath: Direct` needs none",
    ),
    ("draining", "this replica is ending; connect again"),
    ("event_id", "open the stream without `Last-Event-ID`"),
    ("header_mismatch", "a header says something else than the body"),
    ("host", "use a public host; `publicHosts` adds one"),
    (
        "invalid",
        "the body is no JSON-RPC message; `data` names the member that is missing, doubled or spelt differently",
    ),
    ("meta", "`params._meta` lacks what the revision demands"),
    ("method", "no such method in this revision"),
    ("needs", FAULT),
    ("origin", "`spec.allowedOrigins`, `--allowed-origins`"),
    ("params", "the message names the member"),
    ("parse", "the body is not JSON"),
    (
        "policy",
        "a rule denies the call: `mcpgw explain` names it and what would have to change",
    ),
    (
        "protocol",
        "a fault of the gateway, or Envoy's filter is not the operator's: report it with the log",
    ),
    (
        "request_state",
        "begin the call anew: `requestState` is older than 10 minutes, or another call's",
    ),
    (
        "response",
        "the question is answered already, or was asked in another session",
    ),
    ("scope", "ask for the scopes of the challenge"),
    (
        "session",
        "send `initialize` again: the session ended, or is another replica's ([sessions](../guides/sessions.md))",
    ),
    (
        "session_missing",
        "send `initialize` first, then the header `Mcp-Session-Id`",
    ),
    (
        "sessions",
        "wait a second: this replica remembers as many sessions as it may",
    ),
    ("store", "the session store does not answer: look at it"),
    ("streams", "close streams of this caller that nobody reads"),
    (
        "unknown",
        "not published to this caller: `mcpgw tools list`, `mcpgw explain`",
    ),
    (
        "user_token",
        "open the page that the answer names and hand in a token for that server",
    ),
    (
        "version",
        "a revision that the gateway serves ([revisions](../guides/revisions.md))",
    ),
];

/// Status, code and message of one refusal.
type Shape = (String, String, String);

/// The page.
///
/// # Errors
/// When a source file cannot be read.
pub fn page(root: &Path) -> io::Result<String> {
    let mut text = String::from(
        "# Errors\n\n<!-- Made from code: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs -->\n\n\
         What the gateway itself answers; the word is that of logs (`Request refused`, `reason`) and metrics. Errors of tools and \
         of MCP servers pass as they are.\n\n| word | HTTP | code | message | do |\n|---|---|---|---|---|\n",
    );
    let remedies: BTreeMap<&str, &str> = REMEDIES.iter().copied().collect();
    for (reason, shapes) in refusals(root)? {
        let remedy = remedies.get(reason.as_str()).copied().unwrap_or_default();
        for (status, code, message) in shapes {
            let remedy = if status == "500" { FAULT } else { remedy };
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "| `{reason}` | {status} | {code} | {} | {remedy} |",
                crate::cell(&message)
            );
        }
    }
    Ok(text)
}

/// Words of refusals that [`page`] has no remedy for, and remedies without a refusal.
///
/// # Errors
/// When a source file cannot be read.
pub fn unmatched(root: &Path) -> io::Result<Vec<String>> {
    let made: BTreeSet<String> = refusals(root)?.into_keys().collect();
    let known: BTreeSet<String> = REMEDIES.iter().map(|(reason, _)| (*reason).to_owned()).collect();
    Ok(made.symmetric_difference(&known).cloned().collect())
}

fn refusals(root: &Path) -> io::Result<BTreeMap<String, BTreeSet<Shape>>> {
    let mut found: BTreeMap<String, BTreeSet<Shape>> = BTreeMap::new();
    let Ok(call) = Regex::new(
        r#"Refusal::new\(\s*(?<status>\w+),\s*(?<code>[\w:-]+),\s*(?<message>"[^"]*"|format!\("[^"]*"\)|\w+),\s*"(?<reason>[a-z_]+)""#,
    ) else {
        return Ok(found);
    };
    let codes = codes(&fs::read_to_string(root.join("broker/src/protocol/reply.rs"))?);
    for file in sources(&root.join("broker/src"))? {
        let source = fs::read_to_string(file)?;
        let product = source.split("#[cfg(test)]").next().unwrap_or_default();
        for captures in call.captures_iter(product) {
            let code = captures["code"].rsplit("::").next().unwrap_or_default();
            let code = codes.get(code).map_or("", String::as_str);
            let status = Some(&captures["status"]).filter(|status| status.parse::<u16>().is_ok());
            let shape = (
                status.unwrap_or("4xx").to_owned(),
                code.to_owned(),
                shown(&captures["message"]),
            );
            found
                .entry(captures["reason"].to_owned())
                .or_default()
                .insert(shape);
        }
    }
    Ok(found)
}

/// A literal as it is, with names in angle brackets; a variable names what is wrong.
fn shown(message: &str) -> String {
    match message.split('"').nth(1) {
        Some(text) => format!("`{}`", text.replace('{', "<").replace('}', ">")),
        None => "names it".to_owned(),
    }
}

fn codes(source: &str) -> BTreeMap<String, String> {
    let line = Regex::new(r"pub const (?<name>[A-Z_]+): i32 = (?<code>-\d+);");
    let found = line.iter().flat_map(|line| line.captures_iter(source));
    let mut codes: BTreeMap<String, String> = found
        .map(|captures| (captures["name"].to_owned(), captures["code"].to_owned()))
        .collect();
    codes.insert("URL_ELICITATION".to_owned(), "-32042".to_owned());
    codes
}

/// Every source file of a folder but tests.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
