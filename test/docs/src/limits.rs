//! `docs/reference/limits.md`: what is bounded and what happens past it; each number is read from the constant that bounds.

use std::{fmt::Write as _, fs, io, path::Path};

use regex::Regex;

/// What a number counts.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Count,
    Seconds,
}

/// What, file and constant, unit, past it.
type Row = (&'static str, &'static str, &'static str, Unit, &'static str);

use Unit::{Bytes, Count, Seconds};

const ROWS: &[Row] = &[
    (
        "request body, `--max-request-body-size` at most",
        "options/validate.rs",
        "HARD_BODY_LIMIT",
        Bytes,
        "413",
    ),
    (
        "request headers, bytes",
        "front/listener.rs",
        "MAX_HEADER_BYTES",
        Bytes,
        "431",
    ),
    (
        "request headers, fields",
        "front/listener.rs",
        "MAX_HEADERS",
        Count,
        "431",
    ),
    (
        "connections of a replica",
        "front/listener.rs",
        "MAX_CONNECTIONS",
        Count,
        "wait",
    ),
    (
        "first byte of a connection",
        "front/patience.rs",
        "FIRST",
        Seconds,
        "the connection is closed",
    ),
    (
        "reader of a reply that takes nothing",
        "front/patience.rs",
        "STALLED",
        Seconds,
        "the reply ends",
    ),
    (
        "reading a request body",
        "front/body.rs",
        "BODY_READ",
        Seconds,
        "408",
    ),
    ("nesting of JSON", "protocol/json.rs", "MAX_DEPTH", Count, "400"),
    (
        "a published name, characters",
        "aggregation/offer.rs",
        "MAX_NAME",
        Count,
        "not published, warning in the status",
    ),
    ("a URI", "aggregation/offer.rs", "MAX_URI", Bytes, "not published"),
    (
        "messages of a batch",
        "decision/batch.rs",
        "MAX_MESSAGES",
        Count,
        "400",
    ),
    (
        "list of one server and kind, pages",
        "upstreams/listing.rs",
        "MAX_PAGES",
        Count,
        "the rest is not served, `truncated` in the status",
    ),
    (
        "the same, items",
        "upstreams/listing.rs",
        "MAX_ITEMS",
        Count,
        "the same",
    ),
    (
        "the same, bytes",
        "transport/exchange.rs",
        "MAX_ANSWER",
        Bytes,
        "the same",
    ),
    (
        "any other answer of a server to the gateway's own requests, bytes",
        "transport/exchange.rs",
        "MAX_SHORT",
        Bytes,
        "the request failed",
    ),
    (
        "one definition",
        "upstreams/items.rs",
        "MAX_DEFINITION",
        Bytes,
        "the item is invalid",
    ),
    (
        "depth of a schema",
        "upstreams/items.rs",
        "MAX_SCHEMA_DEPTH",
        Count,
        "the item is invalid",
    ),
    (
        "servers, virtual servers, policies: each",
        "config/document.rs",
        "MAX_ITEMS",
        Count,
        "the rest is left out (of policies: everything is denied), `config.error`",
    ),
    (
        "config file",
        "config/document.rs",
        "MAX_BYTES",
        Bytes,
        "refused, the former one stays",
    ),
    (
        "page of a list, bytes (items: `--page-size`)",
        "aggregation/lists.rs",
        "MAX_PAGE_BYTES",
        Bytes,
        "next page",
    ),
    (
        "pages of lists that are kept, together",
        "aggregation/lists.rs",
        "MAX_KEPT",
        Bytes,
        "made again",
    ),
    (
        "pages of lists that are kept, by caller",
        "aggregation/lists.rs",
        "MAX_ASKED",
        Count,
        "made again",
    ),
    (
        "age of a cursor",
        "aggregation/lists.rs",
        "CURSOR_LIFE",
        Seconds,
        "-32602",
    ),
    (
        "sessions that a replica without a store remembers",
        "sessions/memory.rs",
        "MAX_SESSIONS",
        Count,
        "503 for `initialize`",
    ),
    (
        "GET streams of clients, of a replica",
        "front/streams.rs",
        "MAX_STREAMS",
        Count,
        "429",
    ),
    (
        "the same, of one identity",
        "front/streams.rs",
        "MAX_PER_IDENTITY",
        Count,
        "429",
    ),
    (
        "streams of backend sessions, of a replica",
        "front/unsolicited.rs",
        "MAX_STREAMS",
        Count,
        "not opened, counted in `mcp_broker_stream_overflows_total`",
    ),
    (
        "servers that clients without a session listen to, of a replica",
        "front/updates.rs",
        "MAX_SOURCES",
        Count,
        "not acknowledged, counted likewise",
    ),
    (
        "values of a completion (ExtProc: where the reply is read anyway)",
        "protocol/completion.rs",
        "MAX_VALUES",
        Count,
        "cut, `hasMore`",
    ),
    (
        "queued messages of a stream",
        "front/channel.rs",
        "MAX_MESSAGES",
        Count,
        "the stream is closed",
    ),
    (
        "queued bytes of a stream",
        "front/channel.rs",
        "MAX_BYTES",
        Bytes,
        "the stream is closed",
    ),
    (
        "replay after a lost stream",
        "front/channel.rs",
        "KEPT",
        Seconds,
        "the stream starts afresh",
    ),
    (
        "calls at once of a session (Direct, standalone)",
        "front/slots.rs",
        "OF_SESSION",
        Count,
        "429",
    ),
    (
        "calls at once to a server, of a replica (Direct, standalone)",
        "front/slots.rs",
        "OF_SERVER",
        Count,
        "429",
    ),
    (
        "sessions that are being opened at once at one server",
        "sessions/opener.rs",
        "OPENINGS_OF_SERVER",
        Count,
        "503",
    ),
    (
        "links to resources that a session was given",
        "sessions/links.rs",
        "MAX_LINKS",
        Count,
        "the oldest cannot be followed any more",
    ),
    (
        "URI of such a link",
        "protocol/links.rs",
        "MAX_URI",
        Bytes,
        "it cannot be followed",
    ),
    (
        "an answer that is searched for links",
        "protocol/links.rs",
        "MAX_READ",
        Bytes,
        "its links cannot be followed",
    ),
    (
        "links of all sessions, without a session store",
        "sessions/links.rs",
        "MAX_BYTES",
        Bytes,
        "the sessions that got theirs first lose them",
    ),
    (
        "URIs that a session subscribed to, together",
        "sessions/record.rs",
        "MAX_SUBSCRIBED",
        Bytes,
        "no updates of more",
    ),
    (
        "ext_proc streams at once",
        "router/server.rs",
        "MAX_STREAMS",
        Count,
        "refused by gRPC",
    ),
    (
        "body that is kept for a call to be sent again",
        "sessions/kept.rs",
        "MAX_BODY",
        Bytes,
        "not sent again",
    ),
    (
        "rewritten event",
        "protocol/sse.rs",
        "MAX_EVENT",
        Bytes,
        "the stream ends with an error",
    ),
    (
        "clients of 2024-11-05 (`legacySSE`)",
        "front/older.rs",
        "MAX_CLIENTS",
        Count,
        "503",
    ),
    (
        "messages of one of them that are worked on at once",
        "front/older.rs",
        "MAX_RUNNING",
        Count,
        "429",
    ),
    (
        "TLS handshake (`tls` of a file)",
        "front/tls.rs",
        "HANDSHAKE",
        Seconds,
        "the connection is closed",
    ),
    (
        "rounds of questions in one call",
        "front/rounds.rs",
        "MAX_ROUNDS",
        Count,
        "`isError`",
    ),
    (
        "age of a `requestState`",
        "decision/round.rs",
        "LIFE",
        Seconds,
        "400",
    ),
    (
        "lists for one user that are kept",
        "aggregation/user_lists.rs",
        "MAX_KEPT",
        Count,
        "fetched again",
    ),
    (
        "list for one user, fetching it",
        "aggregation/user_lists.rs",
        "FETCH",
        Seconds,
        "the server is left out",
    ),
    (
        "list for one user, age",
        "aggregation/user_lists.rs",
        "LIFE",
        Seconds,
        "fetched again",
    ),
    (
        "lists for single users, together",
        "aggregation/user_lists.rs",
        "MAX_BYTES",
        Bytes,
        "not kept",
    ),
    (
        "page on which a user hands in a token",
        "sessions/store.rs",
        "ELICITATION",
        Seconds,
        "400",
    ),
    (
        "pause between attempts to reach a server",
        "upstreams/connection.rs",
        "LONGEST_BACKOFF",
        Seconds,
        "",
    ),
    (
        "failures in a row until a server's items go",
        "upstreams/publisher.rs",
        "TOLERATED",
        Count,
        "items withdrawn",
    ),
    (
        "line of a stdio server",
        "bridges/stdio.rs",
        "MAX_LINE",
        Bytes,
        "its process is ended",
    ),
    (
        "stdio session without use",
        "bridges/session.rs",
        "IDLE",
        Seconds,
        "its process is ended",
    ),
    (
        "calls at once of one process for all sessions",
        "bridges/sharing.rs",
        "MAX_CALLS",
        Count,
        "`busy`",
    ),
    (
        "silence of such a process that owes an answer",
        "bridges/shared.rs",
        "HUNG",
        Seconds,
        "its process is ended",
    ),
    ("a token", "auth/jwt.rs", "MAX_TOKEN", Bytes, "401"),
    (
        "verified callers that are remembered",
        "authn.rs",
        "MAX_REMEMBERED",
        Count,
        "verified again",
    ),
    (
        "verified caller, without a look at the signature",
        "authn.rs",
        "REMEMBERED",
        Seconds,
        "verified again",
    ),
    (
        "keys of an issuer that cannot be fetched anew",
        "authn/remote_keys.rs",
        "KEPT",
        Seconds,
        "503",
    ),
    ("a key document", "auth/jwks.rs", "MAX_DOCUMENT", Bytes, "refused"),
    (
        "series of one metric by tool",
        "telemetry/call_metrics.rs",
        "MAX_SERIES",
        Count,
        "`tool=\"other\"`",
    ),
    ("line of the log", "telemetry/logs.rs", "MAX_LINE", Bytes, "cut"),
];

/// The page.
///
/// # Errors
/// When a source file cannot be read, or has no such constant.
pub fn page(root: &Path) -> io::Result<String> {
    let mut text = String::from(
        "# Limits\n\n<!-- Made from code: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs -->\n\n\
         Nothing in the data plane is unbounded, and who goes past a bound is the only one to notice. Those that have a \
         [flag](flags.md) are defaults.\n\n| what | limit | past it |\n|---|---|---|\n",
    );
    for (what, file, name, unit, past) in ROWS {
        let source = fs::read_to_string(root.join("broker/src").join(file))?;
        let value =
            value(&source, name).ok_or_else(|| io::Error::other(format!("{file} has no number {name}")))?;
        // Writing into a String cannot fail.
        let _ = writeln!(text, "| {what} | {} | {past} |", shown(value, *unit));
    }
    Ok(text)
}

/// The number of a constant: a product of numbers, or whole seconds of a `Duration`.
fn value(source: &str, name: &str) -> Option<u64> {
    let line = Regex::new(&format!(
        r"const {name}: \w+ =\s*(?:Duration::from_secs\()?(?<product>[0-9_* ]+)\)?;"
    ));
    let captures = line.ok()?.captures(source)?;
    let factors = captures["product"].replace('_', "");
    factors
        .split('*')
        .map(|factor| factor.trim().parse::<u64>().ok())
        .product()
}

fn shown(value: u64, unit: Unit) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * 1024;
    match unit {
        Bytes if value.is_multiple_of(MIB) => format!("{} MiB", value / MIB),
        Bytes if value.is_multiple_of(KIB) => format!("{} KiB", value / KIB),
        Bytes => format!("{value} B"),
        Seconds if value.is_multiple_of(3600) => format!("{} h", value / 3600),
        Seconds if value > 120 && value.is_multiple_of(60) => format!("{} min", value / 60),
        Seconds => format!("{value} s"),
        Count => value.to_string(),
    }
}
