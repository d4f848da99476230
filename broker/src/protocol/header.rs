//! HTTP header names of the gateway, the strip list (data-plane.md 8.5), and values that are not visible ASCII.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Session header of the legacy era.
pub const SESSION: &str = "mcp-session-id";
/// Protocol version header.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Target host of a hairpin request.
pub const INIT_HOST: &str = "mcp-init-host";
/// Hairpin token.
pub const ROUTER_KEY: &str = "router-key";
/// Input of a client or policy: capabilities.
pub const AUTHORIZED: &str = "x-mcp-authorized";
/// Input of a client or policy: virtual server.
pub const VIRTUAL_SERVER: &str = "x-mcp-virtualserver";
/// Method of the message, set by the router.
pub const METHOD: &str = "x-mcp-method";
/// Server name of the message, set by the router.
pub const SERVER_NAME: &str = "x-mcp-servername";
/// Original tool name, set by the router.
pub const TOOL_NAME: &str = "x-mcp-toolname";
/// Original prompt name, set by the router.
pub const PROMPT_NAME: &str = "x-mcp-promptname";
/// Original resource URI, set by the router.
pub const RESOURCE_URI: &str = "x-mcp-resourceuri";
/// Annotation hints of the tool, set by the router.
pub const HINTS: &str = "x-mcp-annotation-hints";
/// Envoy's per-request timeout in milliseconds.
pub const UPSTREAM_TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";
/// Sealed mark of a call that the gateway sends once more.
pub const REPLAY: &str = "x-mcp-replay";
/// Method of the message, stateless revision.
pub const MCP_METHOD: &str = "mcp-method";
/// Name or URI that the message is about, stateless revision.
pub const MCP_NAME: &str = "mcp-name";
/// Begins the headers that mirror arguments, stateless revision.
pub const MCP_PARAM: &str = "mcp-param-";
/// Value of `x-mcp-servername` on the broker path.
pub const BROKER: &str = "mcpBroker";

/// Headers that carry a client's credentials: a server sees them only when its registration names them.
pub const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const INTERNAL: [&str; 5] = [
    INIT_HOST,
    ROUTER_KEY,
    "gateway-server-id",
    UPSTREAM_TIMEOUT,
    "x-envoy-original-path",
];

/// True for a header that no client may send: removed from every request on an owned host. `name` is lower case.
pub fn is_internal(name: &str) -> bool {
    name.starts_with("x-mcp-") || INTERNAL.contains(&name)
}

/// Headers that belong to one hop or to the body, and those of the MCP transport: not copied to a hairpin request.
pub fn is_own_of_hop(name: &str) -> bool {
    const HOP: [&str; 12] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "expect",
        "last-event-id",
        "user-agent",
        "forwarded",
    ];
    name.starts_with(':')
        || HOP.contains(&name)
        || name.starts_with("mcp-")
        || name.starts_with("content-")
        || name.starts_with("accept")
        || name.starts_with("x-envoy-")
        || name.starts_with("x-forwarded-")
        || name == "x-request-id"
}

/// The value as it is when it is visible ASCII (blanks inside allowed), else `=?base64?…?=`.
pub fn encode(value: &str) -> String {
    let plain = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && value.trim() == value;
    if plain && !value.starts_with("=?base64?") {
        value.to_owned()
    } else {
        format!("=?base64?{}?=", STANDARD.encode(value))
    }
}

/// What a header value means: `=?base64?…?=` is decoded, everything else is itself. `None` when the code is broken.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    let code = value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    match code {
        None => Some(Cow::Borrowed(value)),
        Some(code) => String::from_utf8(STANDARD.decode(code).ok()?)
            .ok()
            .map(Cow::Owned),
    }
}

/// What an `Accept` header allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`.
    pub json: bool,
    /// `text/event-stream`.
    pub sse: bool,
}

/// Reads an `Accept` header. An absent one is fine for JSON and never gets SSE.
pub fn accepts(value: Option<&str>) -> Accepts {
    let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
        return Accepts {
            json: true,
            sse: false,
        };
    };
    let mut found = Accepts {
        json: false,
        sse: false,
    };
    for part in value.split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let media = pieces.next().unwrap_or_default().to_ascii_lowercase();
        if pieces.any(|piece| {
            matches!(
                piece.replace(' ', "").as_str(),
                "q=0" | "q=0.0" | "q=0.00" | "q=0.000"
            )
        }) {
            continue;
        }
        match media.as_str() {
            "*/*" => {
                found = Accepts {
                    json: true,
                    sse: true,
                }
            }
            "application/*" | "application/json" => found.json = true,
            "text/*" | "text/event-stream" => found.sse = true,
            _ => {}
        }
    }
    found
}

/// True for `application/json` with any parameters.
pub fn is_json(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// True for `text/event-stream` with any parameters.
pub fn is_sse(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_every_x_mcp_header_is_internal() {
        for name in [
            "x-mcp-toolname",
            "x-mcp-anything",
            "mcp-init-host",
            "router-key",
            "gateway-server-id",
            "x-envoy-upstream-rq-timeout-ms",
        ] {
            assert!(is_internal(name), "{name}");
        }
        assert!(!is_internal("mcp-session-id") && !is_internal("authorization"));
    }

    #[test]
    fn values_beyond_visible_ascii_are_encoded() {
        assert_eq!(encode("forecast"), "forecast");
        assert_eq!(encode("é"), "=?base64?w6k=?=");
        assert_eq!(encode(" a"), "=?base64?IGE=?=");
        assert_eq!(encode("a\r\nx: y"), "=?base64?YQ0KeDogeQ==?=");
        for text in ["forecast", "é", " a", "=?base64?x?="] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
        assert_eq!(decode("=?base64?SGVsbG8?="), None, "no padding");
    }

    #[test]
    fn accept_lists_are_read_with_weights_and_wildcards() {
        assert_eq!(
            accepts(None),
            Accepts {
                json: true,
                sse: false
            }
        );
        assert_eq!(
            accepts(Some("application/json, text/event-stream")),
            Accepts {
                json: true,
                sse: true
            }
        );
        assert_eq!(
            accepts(Some("text/event-stream;q=0, application/json")),
            Accepts {
                json: true,
                sse: false
            }
        );
        assert_eq!(
            accepts(Some("text/html")),
            Accepts {
                json: false,
                sse: false
            }
        );
        assert_eq!(
            accepts(Some("*/*")),
            Accepts {
                json: true,
                sse: true
            }
        );
    }
}
