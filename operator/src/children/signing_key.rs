//! Secret `mcp-gateway-session-signing-key` (operator.md 5.5): an existing key of at least 32 bytes is never changed.

use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_api::names;
use serde_json::{Value, json};

use super::Child;
use crate::{
    blueprint::{Blueprint, SigningKey},
    kinds::Kind,
};

/// Key of the value in the Secret.
pub(crate) const KEY: &str = "key";
/// Key of the former value during a rotation.
pub(crate) const PREVIOUS: &str = "previous";
/// Shortest accepted value in bytes.
pub(crate) const MIN_BYTES: usize = 32;

/// The Secret for `live` as it is now: a value that is there stays. Only a fresh one is ever written, never one that was
/// read before, so that a key which somebody deletes meanwhile does not come back.
pub(crate) fn build(blueprint: &Blueprint, live: Option<&Value>) -> Child {
    let existing = live
        .and_then(|live| live.pointer("/data")?.get(KEY)?.as_str())
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|value| value.len() >= MIN_BYTES);
    let key = existing
        .as_deref()
        .unwrap_or_else(|| blueprint.fresh_signing_key.expose());
    let data = json!({"data": {KEY: STANDARD.encode(key)}});
    Child::owned(blueprint, Kind::Secret, names::SIGNING_KEY_SECRET, data).label(names::SECRET_LABEL, "true")
}

/// The key to use: the existing one, else the hex digits of `random`.
pub(crate) fn choose(existing: Option<&[u8]>, random: [u8; 32]) -> SigningKey {
    match existing {
        Some(value) if value.len() >= MIN_BYTES => SigningKey::new(value.to_vec()),
        _ => SigningKey::new(hex::encode(random).into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::tests::blueprint;

    #[test]
    fn t31_a_key_that_was_deleted_meanwhile_does_not_come_back() {
        let blueprint = blueprint(&json!({}));
        let value = |live: Option<&Value>| {
            let text = build(&blueprint, live).body(None)["data"][KEY]
                .as_str()
                .map(str::to_owned);
            STANDARD.decode(text.expect("text")).expect("base64")
        };
        assert_eq!(value(None), blueprint.fresh_signing_key.expose());
        let users = json!({"data": {KEY: STANDARD.encode([9u8; 40])}});
        assert_eq!(value(Some(&users)), [9u8; 40]);
        let short = json!({"data": {KEY: STANDARD.encode("short")}});
        assert_eq!(value(Some(&short)), blueprint.fresh_signing_key.expose());
    }

    #[test]
    fn t31_an_existing_key_of_32_bytes_is_kept_and_a_missing_or_short_one_is_replaced() {
        let existing = [7u8; 32];
        assert_eq!(choose(Some(&existing), [1; 32]).expose(), existing);
        assert_eq!(choose(None, [1; 32]).expose(), "01".repeat(32).as_bytes());
        assert_eq!(choose(Some(b"short"), [1; 32]).expose().len(), 64);
    }
}
