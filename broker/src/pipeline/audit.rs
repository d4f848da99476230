//! The audit record of calls (data-plane.md 18.5): one line per `tools/call`, `prompts/get` and `resources/read`, written
//! where the router decides. The ordinary path has no response phase, so a forwarded call is recorded as forwarded,
//! without the status of the reply.

use crate::auth::identity;
use crate::auth::keys::Keys;
use crate::decision::stateless::era;
use crate::decision::{Answer, Facts, Forward, Head};
use crate::protocol::message::Message;
use std::borrow::Cow;
use std::time::Duration;

/// Version of the record: it rises when a field goes or changes its meaning, not when one is added.
const VERSION: u64 = 1;
/// Longest text of one field, characters.
const MAX_FIELD: usize = 256;

/// A call.
pub struct Call<'a> {
    /// Headers, with the caller.
    pub head: &'a Head,
    /// Message.
    pub message: &'a Message<'a>,
    /// What is known of the session.
    pub facts: &'a Facts,
    /// Keys, for the digest of the arguments.
    pub keys: &'a Keys,
}

/// What happened to the call.
pub enum Outcome<'a> {
    /// It went to a server.
    Forwarded(&'a Forward),
    /// It was answered by the gateway.
    Answered(&'a Answer),
}

/// Writes the record when the method is one that is audited.
pub fn record(call: &Call<'_>, outcome: &Outcome<'_>, elapsed: Duration) {
    let (head, message) = (call.head, call.message);
    let Some(what) = audited(&message.method) else {
        return;
    };
    let named = message
        .name
        .as_ref()
        .or(message.uri.as_ref())
        .map(|name| shortened(&name.value))
        .unwrap_or_default();
    let (outcome_word, status, reason, rule, edits) = match outcome {
        Outcome::Forwarded(forward) => ("forwarded", 0, "", &forward.rule, Some(&forward.edits)),
        Outcome::Answered(answer) => (
            word(answer.refusal.reason),
            answer.refusal.status,
            answer.refusal.reason,
            &answer.rule,
            None,
        ),
    };
    let member = |names: &[&str]| {
        let text = edits.and_then(|edits| edits.metadata.text.iter().find(|(name, _)| names.contains(name)));
        text.map(|(_, value)| shortened(value)).unwrap_or_default()
    };
    let session = call
        .facts
        .claims
        .as_ref()
        .map(|claims| format!("jti:{}", claims.jti))
        .unwrap_or_default();
    let (issuer, user) = head.caller.as_ref().map_or(("", ""), |caller| caller.subject());
    let unverified = match head.caller {
        Some(_) => None,
        None => identity::unverified_subject(head.get("authorization")),
    };
    tracing::info!(
        component = "router",
        audit = true,
        audit_version = VERSION,
        user = &*shortened(user),
        user_unverified = &*shortened(&unverified.unwrap_or_default()),
        issuer = &*shortened(issuer),
        tool = &*named,
        target = &*member(&["tool", "prompt", "resource"]),
        server = &*member(&["server"]),
        outcome = outcome_word,
        status,
        reason,
        route_rule = &*shortened(rule),
        session,
        virtual_server = &*member(&["virtual_server"]),
        trace = trace(head.get("traceparent").unwrap_or_default()),
        request_id = &*shortened(head.get("x-request-id").unwrap_or_default()),
        jsonrpc_id = &*shortened(message.id.unwrap_or_default()),
        client_address = &*shortened(head.get("x-forwarded-for").unwrap_or_default()),
        arguments_hmac = arguments_digest(call),
        duration_ms = elapsed.as_millis() as u64,
        era = era(head, Some(message), call.facts.claims.is_some()).as_str(),
        "{what}"
    );
}

/// The trace id of a `traceparent` (W3C Trace Context); empty without one.
fn trace(parent: &str) -> &str {
    let id = parent.split('-').nth(1).unwrap_or_default();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { id } else { "" }
}

/// What the record of a method is called, when it has one.
fn audited(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" => Some("tool call"),
        "prompts/get" => Some("prompt get"),
        "resources/read" => Some("resource read"),
        _ => None,
    }
}

/// Tells equal arguments from others without saying what they are: 16 hex digits under a key of this gateway.
fn arguments_digest(call: &Call<'_>) -> String {
    let Some(arguments) = call.message.arguments else {
        return String::new();
    };
    let tag = call.keys.derived_tag("audit-arguments", arguments.as_bytes());
    let (first, _) = tag.split_at(8);
    hex::encode(first)
}

/// The words of `outcome` that the metrics know.
pub fn word(reason: &str) -> &'static str {
    match reason {
        "unknown" => "not_found",
        "session" | "session_missing" | "policy" => "denied",
        "backend_late" => "timeout",
        "store" | "busy" | "backend_unavailable" | "backend_refused" => "unavailable",
        _ => "client_error",
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_FIELD || text.chars().nth(MAX_FIELD).is_none() {
        return text.into();
    }
    text.chars().take(MAX_FIELD).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Edits;
    use crate::protocol::message::read;
    use crate::protocol::reply::Refusal;
    use crate::sessions::store::BackendSession;
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
            fields: vec![
                ("authorization".to_owned(), b"Bearer hunter2".to_vec()),
                (
                    "traceparent".to_owned(),
                    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec(),
                ),
            ],
            ..Head::default()
        };
        let message = read(body.as_bytes()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let call = Call {
                head: &head,
                message: &message,
                facts: &Facts::default(),
                keys: &Keys::new(crate::secret::Secret::new("k"), None),
            };
            record(&call, outcome, Duration::from_millis(3));
        });
        let text = sink.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_call_is_recorded_once_with_names_and_without_arguments_or_credentials() {
        let body = r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"one_forecast","arguments":{"secret":"hunter3"}}}"#;
        let server =
            crate::config::document::read(b"servers: [{name: ns/one, url: 'http://one.test/mcp'}]").unwrap();
        let mut edits = Edits::default();
        edits.metadata.text = vec![("server", "ns/one".to_owned()), ("tool", "forecast".to_owned())];
        let forward = Forward {
            server: Arc::clone(&server.servers[0]),
            backend: BackendSession {
                id: None,
                version: "2025-11-25".to_owned(),
                logging: false,
            },
            edits,
            reply: None,
            rule: "ns/policy rule-0".to_owned(),
            once: None,
            links: None,
        };
        let line = recorded(body, &Outcome::Forwarded(&forward));
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = &record["fields"];
        assert_eq!(
            (fields["message"].as_str(), fields["audit"].as_bool()),
            (Some("tool call"), Some(true))
        );
        assert_eq!(fields["audit_version"], 1);
        assert_eq!(fields["trace"], "0af7651916cd43dd8448eb211c80319c");
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
        assert_eq!(fields["route_rule"], "ns/policy rule-0");
        assert_eq!(fields["arguments_hmac"].as_str().map(str::len), Some(16));
        assert!(!line.contains("hunter"), "{line}");
    }

    #[test]
    fn refused_calls_are_recorded_and_other_methods_are_not() {
        let refusal = Refusal::new(200, -32602, "Unknown tool: x", "unknown");
        let answer = Answer {
            refusal,
            id: None,
            session: None,
            rule: String::new(),
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
