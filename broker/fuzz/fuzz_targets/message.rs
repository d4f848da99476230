//! Any bytes as a message of a client or a server: what is accepted is JSON to serde as well, with the same meaning of the
//! routed members; a splice changes that member and no other byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_gateway_broker::protocol::json::quoted;
use mcp_gateway_broker::protocol::message::{Routed, read, splice};
use mcp_gateway_broker::protocol::server_message;
use serde_json::Value;

const NEW: &str = "n\u{e9}w \"name\"";

fn spliced_at(body: &[u8], routed: &Routed<'_>, pointer: &str) {
    let before: Value = serde_json::from_slice(body).expect("accepted, so JSON");
    assert_eq!(
        before.pointer(pointer).and_then(Value::as_str),
        Some(routed.value.as_ref())
    );
    let after = splice(body, &routed.range, &quoted(NEW)).expect("a range of the body");
    let mut expected = before;
    *expected.pointer_mut(pointer).expect("seen above") = NEW.into();
    let parsed: Value = serde_json::from_slice(&after).expect("still JSON");
    assert_eq!(parsed, expected);
    assert_eq!(after[..routed.range.start], body[..routed.range.start]);
    assert!(after.ends_with(&body[routed.range.end..]));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = server_message::read(text);
    }
    let Ok(message) = read(bytes) else { return };
    // Numbers beyond serde's range are JSON all the same.
    if serde_json::from_slice::<Value>(bytes).is_err_and(|error| error.to_string().contains("number out of range")) {
        return;
    }
    for (routed, pointer) in [(&message.name, "/params/name"), (&message.uri, "/params/uri")] {
        if let Some(routed) = routed {
            spliced_at(bytes, routed, pointer);
        }
    }
    if let Some(reference) = &message.reference {
        for (routed, pointer) in [(&reference.name, "/params/ref/name"), (&reference.uri, "/params/ref/uri")] {
            if let Some(routed) = routed {
                spliced_at(bytes, routed, pointer);
            }
        }
    }
});
