//! The audit record of calls (data-plane.md 18.5): one line per `tools/call`, `prompts/get` and `resources/read`, written
//! where the router decides. The ordinary path has no response phase, so a forwarded call is recorded as forwarded,
//! without the status of the reply.

use crate::decision::{Answer, Edits, Facts, Head};
use crate::protocol::message::Message;
use std::time::Duration;

/// Longest text of one field, characters.
const MAX_FIELD: usize = 256;

/// What happened to the call.
pub enum Outcome<'a> {
    /// It went to the server that these edits name.
    Forwarded(&'a Edits),
    /// It was answered by the gateway.
    Answered(&'a Answer),
}

/// Writes the record when the method is one that is audited.
pub fn record(head: &Head, message: &Message<'_>, facts: &Facts, outcome: &Outcome<'_>, elapsed: Duration) {
    let what = match message.method.as_ref() {
        "tools/call" => "tool call",
        "prompts/get" => "prompt get",
        "resources/read" => "resource read",
        _ => return,
    };
    let named = message
        .name
        .as_ref()
        .or(message.uri.as_ref())
        .map(|name| shortened(&name.value))
        .unwrap_or_default();
    let (outcome_word, status, reason, edits) = match outcome {
        Outcome::Forwarded(edits) => ("forwarded", 0, "", Some(*edits)),
        Outcome::Answered(answer) => (
            word(answer.refusal.reason),
            answer.refusal.status,
            answer.refusal.reason,
            None,
        ),
    };
    let member = |names: &[&str]| {
        let text = edits.and_then(|edits| edits.metadata.text.iter().find(|(name, _)| names.contains(name)));
        text.map(|(_, value)| shortened(value)).unwrap_or_default()
    };
    let session = facts
        .claims
        .as_ref()
        .map(|claims| format!("jti:{}", claims.jti))
        .unwrap_or_default();
    tracing::info!(
        component = "router",
        audit = true,
        tool = named,
        target = member(&["tool", "prompt", "resource"]),
        server = member(&["server"]),
        outcome = outcome_word,
        status,
        reason,
        session,
        virtual_server = member(&["virtual_server"]),
        request_id = shortened(head.get("x-request-id").unwrap_or_default()),
        jsonrpc_id = shortened(message.id.unwrap_or_default()),
        client_address = shortened(head.get("x-forwarded-for").unwrap_or_default()),
        duration_ms = elapsed.as_millis() as u64,
        era = "legacy",
        "{what}"
    );
}

/// The words of `outcome` that the metrics know.
fn word(reason: &str) -> &'static str {
    match reason {
        "unknown" => "not_found",
        "session" | "session_missing" => "denied",
        "backend_late" => "timeout",
        "store" | "busy" | "backend_unavailable" | "backend_refused" => "unavailable",
        _ => "client_error",
    }
}

fn shortened(text: &str) -> String {
    if text.chars().nth(MAX_FIELD).is_none() {
        return text.to_owned();
    }
    text.chars().take(MAX_FIELD).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::read;
    use crate::protocol::reply::Refusal;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn recorded(body: &str, outcome: &Outcome<'_>) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(move || writer.clone())
            .finish();
        let head = Head {
            fields: vec![("authorization".to_owned(), b"Bearer hunter2".to_vec())],
            ..Head::default()
        };
        let message = read(body.as_bytes()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            record(
                &head,
                &message,
                &Facts::default(),
                outcome,
                Duration::from_millis(3),
            );
        });
        let text = sink.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_call_is_recorded_once_with_names_and_without_arguments_or_credentials() {
        let body = r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"one_forecast","arguments":{"secret":"hunter3"}}}"#;
        let mut edits = Edits::default();
        edits.metadata.text = vec![("server", "ns/one".to_owned()), ("tool", "forecast".to_owned())];
        let line = recorded(body, &Outcome::Forwarded(&edits));
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = &record["fields"];
        assert_eq!(
            (fields["message"].as_str(), fields["audit"].as_bool()),
            (Some("tool call"), Some(true))
        );
        assert_eq!(
            (
                fields["tool"].as_str(),
                fields["target"].as_str(),
                fields["server"].as_str()
            ),
            (Some("one_forecast"), Some("forecast"), Some("ns/one"))
        );
        assert_eq!(
            (fields["outcome"].as_str(), fields["jsonrpc_id"].as_str()),
            (Some("forwarded"), Some("9007199254740993"))
        );
        assert!(!line.contains("hunter"), "{line}");
    }

    #[test]
    fn refused_calls_are_recorded_and_other_methods_are_not() {
        let refusal = Refusal::new(200, -32602, "Unknown tool: x", "unknown");
        let answer = Answer {
            refusal,
            id: None,
            session: None,
        };
        let line = recorded(
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"x"}}"#,
            &Outcome::Answered(&answer),
        );
        assert!(
            line.contains("prompt get") && line.contains("not_found"),
            "{line}"
        );
        assert_eq!(
            recorded(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
                &Outcome::Answered(&answer)
            ),
            ""
        );
    }
}
