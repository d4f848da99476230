//! The audit record, end to end (data-plane.md 18.5): one for each call, whatever becomes of it, with every field of the
//! contract and nothing secret, on both data paths.

use crate::access::{TOKEN, bearer, with_policy};
use crate::client::Client;
use crate::fixture::Server;
use crate::world::{World, eventually, is_direct};
use base64::Engine as _;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, Once};
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Records of all tests of this process.
static RECORDS: Mutex<Vec<Map<String, Value>>> = Mutex::new(Vec::new());

struct Records;

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0
            .insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        RECORDS.lock().unwrap().push(fields.0);
    }
}

/// Keeps audit records from now on, and no other lines.
pub fn keep_records() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let audit = filter_fn(|meta| meta.fields().field("audit").is_some());
        let layer = Records.with_filter(audit);
        tracing_subscriber::registry().with(layer).try_init().unwrap();
    });
}

/// The records of a session: `jti:` and the id that its token names.
pub fn records(client: &Client) -> Vec<Map<String, Value>> {
    let token = client.session.as_deref().unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let session = format!("jti:{}", claims["jti"].as_str().unwrap());
    let all = RECORDS.lock().unwrap();
    all.iter()
        .filter(|record| record["session"] == session.as_str())
        .cloned()
        .collect()
}

fn body(id: &str, tool: &str) -> String {
    let params = json!({"name": tool, "arguments": {"password": "hunter3"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

/// What the record of a call is to say: outcome and status where the gateway carries calls, and where Envoy does.
struct Expected {
    id: &'static str,
    tool: &'static str,
    direct: (&'static str, u64),
    envoy: (&'static str, u64),
}

const EXPECTED: [Expected; 5] = [
    Expected {
        id: "allowed",
        tool: "one_forecast",
        direct: ("ok", 200),
        envoy: ("forwarded", 0),
    },
    Expected {
        id: "denied",
        tool: "one_history",
        direct: ("denied", 200),
        envoy: ("denied", 200),
    },
    Expected {
        id: "unknown",
        tool: "no_such_tool",
        direct: ("not_found", 200),
        envoy: ("not_found", 200),
    },
    Expected {
        id: "failed",
        tool: "one_forecast",
        direct: ("server_error", 500),
        envoy: ("forwarded", 0),
    },
    Expected {
        id: "cancelled",
        tool: "one_forecast",
        direct: ("cancelled", 0),
        envoy: ("forwarded", 0),
    },
];

const FIELDS: [&str; 23] = [
    "message",
    "audit",
    "audit_version",
    "component",
    "user",
    "user_unverified",
    "issuer",
    "tool",
    "target",
    "server",
    "status",
    "outcome",
    "reason",
    "route_rule",
    "request_id",
    "jsonrpc_id",
    "session",
    "virtual_server",
    "duration_ms",
    "client_address",
    "era",
    "arguments_hmac",
    "trace",
];

async fn five_calls(world: &World, one: &Server) -> Client {
    let client = bearer(world).initialized().await;
    eventually("the policy", || async {
        (client.tools().await == ["one_forecast"]).then_some(())
    })
    .await;
    for call in &EXPECTED[..4] {
        let failing = u16::from(call.id == "failed") * 500;
        one.call_status.store(failing, Ordering::Relaxed);
        client.post(body(call.id, call.tool)).await;
    }
    one.call_status.store(0, Ordering::Relaxed);
    one.hang_calls.store(true, Ordering::Relaxed);
    let before = one.calls("tools/call").len();
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body("cancelled", "one_forecast"));
    let call = tokio::spawn(request.send());
    eventually("the call at its server", || async {
        (one.calls("tools/call").len() > before).then_some(())
    })
    .await;
    // The client leaves.
    call.abort();
    eventually("a record of each call", || async {
        (records(&client).len() >= EXPECTED.len()).then_some(())
    })
    .await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_has_one_audit_record_with_every_field_and_no_secret() {
    keep_records();
    let one = Server::start("one", &["forecast", "history"]).await;
    let text = with_policy(&[(&one, "one_")], "me", "ns/one:forecast");
    let world = World::start_with(&text, &[&one], &[]).await;
    let client = five_calls(&world, &one).await;
    let records = records(&client);
    let ids: Vec<&str> = records
        .iter()
        .map(|record| record["jsonrpc_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), EXPECTED.len(), "{ids:?}");
    for call in &EXPECTED {
        let is = |record: &&Map<String, Value>| record["jsonrpc_id"] == format!("\"{}\"", call.id);
        let [record] = records.iter().filter(is).collect::<Vec<_>>()[..] else {
            panic!("{} has not one record: {records:?}", call.id)
        };
        let names: Vec<&str> = record.keys().map(String::as_str).collect();
        for field in FIELDS {
            assert!(names.contains(&field), "{field} in {names:?}");
        }
        let (outcome, status) = if is_direct() { call.direct } else { call.envoy };
        let said = (
            record["outcome"].as_str().unwrap(),
            record["status"].as_u64().unwrap(),
        );
        assert_eq!(said, (outcome, status), "{}", call.id);
        assert_eq!(record["message"], "tool call");
        assert_eq!(
            (&record["tool"], &record["user"], &record["issuer"]),
            (&call.tool.into(), &"me".into(), &"me".into())
        );
        assert_eq!(record["era"], "legacy");
        assert_eq!(record["arguments_hmac"].as_str().map(str::len), Some(16));
        let passed = call.tool == "one_forecast";
        assert_eq!(record["server"], if passed { "ns/one" } else { "" });
        assert_eq!(record["target"], if passed { "forecast" } else { "" });
        assert_eq!(
            record["route_rule"].as_str().unwrap().contains("ns/policy"),
            passed,
            "{}",
            call.id
        );
    }
    let text = serde_json::to_string(&records).unwrap();
    for secret in [
        "hunter3",
        "password",
        TOKEN,
        client.session.as_deref().unwrap(),
        crate::world::KEY,
    ] {
        assert!(!text.contains(secret), "{text}");
    }
}
