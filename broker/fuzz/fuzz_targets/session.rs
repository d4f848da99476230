//! Any text as a session token, a hairpin token, a sealed string, a bearer token or an encrypted user token: never a
//! panic, and never a session, because nobody without the key can make one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_gateway_broker::auth::capabilities::{Capabilities, CapabilityRules};
use mcp_gateway_broker::auth::keys::Keys;
use mcp_gateway_broker::auth::{hairpin, identity, seal, session};
use mcp_gateway_broker::secret::Secret;

fuzz_target!(|text: &str| {
    let keys = Keys::new(Secret::new("0123456789abcdef0123456789abcdef"), None);
    assert!(session::verify(&keys, text, None, 1).is_none());
    let uses = hairpin::UseCounter::default();
    assert!(hairpin::verify(&keys, &uses, text, ("host", "/mcp"), 1).is_none());
    assert!(seal::open::<serde_json::Value>(&keys, "purpose", text).is_none());
    let _ = identity::binding(&keys, Some(text));
    let read = CapabilityRules::default().read(&[text.to_owned()], 1);
    assert_eq!(read, Capabilities::Nothing);
    // Claims that are signed are read as they stand, whatever they say.
    let signed = keys.sign(text);
    if signed.len() <= 4096 {
        let _ = session::verify(&keys, &signed, None, 1);
        let _ = hairpin::verify(&keys, &uses, &signed, ("host", "/mcp"), 1);
    }
});
