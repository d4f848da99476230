//! JSON-RPC answers of the gateway as bytes: ids in their original spelling, members in the golden order
//! (data-plane.md 14, 15.2).

use super::json::quoted;

/// JSON-RPC: not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: not a message.
pub const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: unknown method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: unknown name, bad cursor, bad argument.
pub const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC: the gateway or a server failed.
pub const INTERNAL: i32 = -32603;
/// Session, authentication, authorization.
pub const SESSION: i32 = -32001;
/// Stateless revision: a header says something else than the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// Stateless revision: the client did not declare what is needed.
pub const MISSING_CAPABILITY: i32 = -32021;
/// Session revisions: unknown resource.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// Modern era: version not served.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// JSON text of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    None,
    /// `data` of the error.
    Data(String),
    /// A result that is given in place of the error: a tool that failed.
    Result(String),
}

/// An answer that the gateway gives itself: HTTP status and JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// JSON-RPC code.
    pub code: i32,
    /// Fixed text of data-plane.md 14, possibly with the requested name; never an address, a body or a stack.
    pub message: String,
    /// What is said beside code and message, or in place of them.
    pub payload: Payload,
    /// Short word for metrics and Envoy's response details.
    pub reason: &'static str,
    /// Value of `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// Value of `WWW-Authenticate`.
    pub challenge: Option<String>,
}

impl Refusal {
    /// A refusal without data.
    pub fn new(status: u16, code: i32, message: impl Into<String>, reason: &'static str) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            payload: Payload::None,
            reason,
            retry_after: None,
            challenge: None,
        }
    }

    /// Adds `WWW-Authenticate`.
    #[must_use]
    pub fn with_challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Adds `data`.
    #[must_use]
    pub fn with_data(mut self, data: String) -> Self {
        self.payload = Payload::Data(data);
        self
    }

    /// Answers with a result in place of the error.
    #[must_use]
    pub fn with_result(mut self, result: String) -> Self {
        self.payload = Payload::Result(result);
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The body; without an id it is `null`.
    pub fn body(&self, id: Option<&str>) -> String {
        match &self.payload {
            Payload::Result(text) => result(id.unwrap_or("null"), text),
            Payload::Data(data) => error(id, self.code, &self.message, Some(data)),
            Payload::None => error(id, self.code, &self.message, None),
        }
    }
}

/// `{"jsonrpc":"2.0","id":…,"error":{…}}`
pub fn error(id: Option<&str>, code: i32, message: &str, data: Option<&str>) -> String {
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let id = id.unwrap_or("null");
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{}{data}}}}}"#,
        quoted(message)
    )
}

/// `{"jsonrpc":"2.0","id":…,"result":…}`; `result` is JSON text.
pub fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A notification without `params`.
pub fn notification(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":{}}}"#, quoted(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d29_an_unknown_tool_is_the_golden_error_with_the_id() {
        let golden = r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32602,"message":"Unknown tool: nope"}}"#;
        assert_eq!(
            error(
                Some("9007199254740993"),
                INVALID_PARAMS,
                "Unknown tool: nope",
                None
            ),
            golden
        );
    }

    #[test]
    fn a_refusal_by_headers_alone_has_a_null_id() {
        let refusal = Refusal::new(404, SESSION, "session not found", "session");
        assert_eq!(
            refusal.body(None),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"session not found"}}"#
        );
    }
}
