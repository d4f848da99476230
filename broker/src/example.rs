//! A small MCP server to try the gateway with, on standard input and output or over HTTP: nothing else has to be installed
//! for a first call. It keeps no sessions.

use crate::protocol::json::quoted;
use crate::protocol::message::{self, Message, MessageKind};
use crate::protocol::reply::{INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR, error, result};
use crate::protocol::version;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::Value;
use std::io::{BufRead as _, Read as _, Write as _};
use tokio::net::TcpListener;

const MAX_LINE: u64 = 1024 * 1024;
const TOOLS: &str = r#"{"tools":[
{"name":"greet","description":"Greets somebody.","inputSchema":{"type":"object","properties":{"name":{"type":"string","description":"Who is greeted."}}},"annotations":{"readOnlyHint":true}},
{"name":"add","description":"Adds two numbers.","inputSchema":{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]},"annotations":{"readOnlyHint":true}}]}"#;

/// Serves at `address`, else on standard input and output until the input ends.
///
/// # Errors
/// When the address cannot be bound, or the output is closed.
pub async fn run(address: Option<String>) -> std::io::Result<()> {
    let Some(address) = address else {
        return tokio::task::block_in_place(lines);
    };
    let listener = TcpListener::bind(&address).await?;
    let app = axum::Router::new().route("/mcp", post(http));
    axum::serve(listener, app).await
}

/// Reads and writes by turns: who speaks with it waits for each answer.
fn lines() -> std::io::Result<()> {
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout());
    let mut line = Vec::new();
    while (&mut input).take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        if let Some(mut answer) = answer(&line) {
            answer.push('\n');
            out.write_all(answer.as_bytes())?;
            out.flush()?;
        }
        line.clear();
    }
    Ok(())
}

async fn http(body: Bytes) -> Response {
    match answer(&body) {
        Some(text) => ([("content-type", "application/json")], text).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    }
}

/// The answer to a message, without line breaks; `None` when it asks nothing.
fn answer(bytes: &[u8]) -> Option<String> {
    let Ok(message) = message::read(bytes) else {
        return Some(error(None, PARSE_ERROR, "parse error", None));
    };
    if message.kind != MessageKind::Request {
        return None;
    }
    let id = message.id?;
    Some(match message.method.as_ref() {
        "initialize" => result(id, &hello(&message)),
        "ping" => result(id, "{}"),
        "tools/list" => result(id, &TOOLS.replace('\n', "")),
        "tools/call" => call(&message, id),
        method => error(
            Some(id),
            METHOD_NOT_FOUND,
            &format!("Method not found: {method}"),
            None,
        ),
    })
}

fn params(message: &Message<'_>) -> Value {
    serde_json::from_str(message.params.unwrap_or("{}")).unwrap_or_default()
}

fn hello(message: &Message<'_>) -> String {
    let params = params(message);
    let version = version::negotiate(params.get("protocolVersion").and_then(Value::as_str));
    format!(
        r#"{{"protocolVersion":{},"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"example","version":{}}}}}"#,
        quoted(version),
        quoted(crate::VERSION)
    )
}

fn call(message: &Message<'_>, id: &str) -> String {
    let params = params(message);
    let argument = |name: &str| params.pointer(&format!("/arguments/{name}"));
    let number = |name: &str| argument(name).and_then(Value::as_f64);
    let (text, failed) = match params.get("name").and_then(Value::as_str) {
        Some("greet") => {
            let name = argument("name").and_then(Value::as_str).unwrap_or("world");
            (format!("Hello, {name}!"), false)
        }
        Some("add") => match (number("a"), number("b")) {
            (Some(a), Some(b)) => ((a + b).to_string(), false),
            _ => ("a and b must be numbers".to_owned(), true),
        },
        _ => return error(Some(id), INVALID_PARAMS, "Unknown tool", None),
    };
    let content = quoted(&text);
    result(
        id,
        &format!(r#"{{"content":[{{"type":"text","text":{content}}}],"isError":{failed}}}"#),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_initializes_lists_and_calls() {
        let ask = |method: &str, params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"{method}","params":{params}}}"#);
            let answer = answer(text.as_bytes()).unwrap();
            assert!(!answer.contains('\n'));
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let hello = ask("initialize", r#"{"protocolVersion":"2025-06-18"}"#);
        assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(
            ask("tools/list", "{}")["result"]["tools"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let sum = ask("tools/call", r#"{"name":"add","arguments":{"a":2,"b":0.5}}"#);
        assert_eq!(sum["result"]["content"][0]["text"], "2.5");
        assert_eq!(ask("tools/call", r#"{"name":"no"}"#)["error"]["code"], -32602);
        assert_eq!(ask("resources/list", "{}")["error"]["code"], -32601);
        assert_eq!(
            answer(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            None
        );
    }
}
