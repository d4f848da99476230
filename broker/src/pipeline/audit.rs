//! The audit record of calls (data-plane.md 18.5): one line per `tools/call`, `prompts/get` and `resources/read`. Where the
//! gateway carries a call itself it is written with the status of the reply (`carried`); Envoy's path has no response phase,
//! so a call that the router forwards is recorded as that where it is decided.

use crate::auth::identity;
use crate::auth::keys::Keys;
use crate::decision::stateless::era;
use crate::decision::{Answer, Edits, Forward, Head};
use crate::protocol::message::Message;
use crate::telemetry::call_metrics::outcome;
use std::borrow::Cow;
use std::time::Duration;
use uuid::Uuid;

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
    /// Its session.
    pub session: Option<Uuid>,
    /// Keys, for the digest of the arguments.
    pub keys: &'a Keys,
}

/// What happened to the call.
pub enum Outcome<'a> {
    /// It went to a server, whose reply is not seen here.
    Forwarded(&'a Forward),
    /// It went to a server: the status that the client got, or nothing when it left before.
    Carried(&'a Carried, Option<u16>),
    /// It was answered by the gateway.
    Answered(&'a Answer),
    /// It is one of the gateway's own tools.
    Own(&'a Edits),
    /// A policy refused, with this status, to let its session with the server be opened.
    Policy(u16),
}

/// What the record of a carried call keeps of its decision.
pub struct Carried {
    rule: String,
    named: Vec<(&'static str, String)>,
}

impl Carried {
    /// Of this decision.
    pub fn of(forward: &Forward) -> Self {
        Self {
            rule: forward.rule.clone(),
            named: forward.edits.metadata.text.clone(),
        }
    }

    /// The server's own name of what is called.
    pub fn target(&self) -> &str {
        named(&self.named, &["tool"])
    }
}

fn named<'a>(text: &'a [(&'static str, String)], names: &[&str]) -> &'a str {
    let found = text.iter().find(|(name, _)| names.contains(name));
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// What a record says of an outcome.
struct Said<'a> {
    outcome: &'static str,
    status: u16,
    reason: &'a str,
    rule: &'a str,
    named: &'a [(&'static str, String)],
}

impl<'a> Outcome<'a> {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Forwarded(_) => "forwarded",
            // A client that takes its call back gets no content.
            Self::Carried(_, None | Some(204)) => "cancelled",
            Self::Carried(_, Some(status)) => outcome(*status),
            Self::Answered(answer) => word(answer.refusal.reason),
            Self::Own(_) => "ok",
            Self::Policy(_) => "denied",
        }
    }

    /// The rule that decided; empty without one.
    pub fn rule(&self) -> &'a str {
        match self {
            Self::Forwarded(forward) => &forward.rule,
            Self::Carried(carried, _) => &carried.rule,
            Self::Answered(answer) => &answer.rule,
            Self::Own(_) | Self::Policy(_) => "",
        }
    }

    fn said(&self) -> Said<'a> {
        let (status, reason, named): (u16, &str, &[_]) = match self {
            Self::Forwarded(forward) => (0, "", &forward.edits.metadata.text),
            Self::Carried(carried, status) => (status.unwrap_or_default(), "", &carried.named),
            Self::Answered(answer) => (answer.refusal.status, answer.refusal.reason, &[]),
            Self::Own(edits) => (0, "", &edits.metadata.text),
            Self::Policy(status) => (*status, "policy", &[]),
        };
        Said {
            outcome: self.word(),
            status,
            reason,
            rule: self.rule(),
            named,
        }
    }
}

/// Writes the record when the method is one that is audited.
pub fn record(call: &Call<'_>, ended: &Outcome<'_>, elapsed: Duration) {
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
    let said = ended.said();
    let member = |names: &[&str]| shortened(self::named(said.named, names));
    let session = call.session.map(|jti| format!("jti:{jti}")).unwrap_or_default();
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
        outcome = said.outcome,
        status = said.status,
        reason = said.reason,
        route_rule = &*shortened(said.rule),
        session,
        virtual_server = &*member(&["virtual_server"]),
        trace = trace(head.get("traceparent").unwrap_or_default()),
        request_id = &*shortened(head.get("x-request-id").unwrap_or_default()),
        jsonrpc_id = &*shortened(message.id.unwrap_or_default()),
        client_address = &*shortened(head.get("x-forwarded-for").unwrap_or_default()),
        arguments_hmac = arguments_digest(call),
        duration_ms = elapsed.as_millis() as u64,
        era = era(head, Some(message), call.session.is_some()).as_str(),
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
pub fn audited(method: &str) -> Option<&'static str> {
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
                session: None,
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
