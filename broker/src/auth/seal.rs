//! Sealed strings: text that leaves the gateway and comes back, tied to one purpose by a tag (S8). They are readable,
//! so nothing secret goes into them.

use super::keys::Keys;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest sealed string that is read, bytes.
const MAX_SEALED: usize = 4096;

/// Seals `payload` for `purpose`.
pub fn seal<T: Serialize>(keys: &Keys, purpose: &'static str, payload: &T) -> String {
    let text = serde_json::to_vec(payload).expect("payloads are plain structs");
    let tag = keys.derived_tag(purpose, &text);
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(&text),
        URL_SAFE_NO_PAD.encode(tag)
    )
}

/// The payload of a string that [`seal`] made for `purpose`; `None` for everything else.
pub fn open<T: DeserializeOwned>(keys: &Keys, purpose: &'static str, sealed: &str) -> Option<T> {
    open_long(keys, purpose, sealed, MAX_SEALED)
}

/// As [`open`], for strings of at most `limit` bytes.
pub fn open_long<T: DeserializeOwned>(
    keys: &Keys,
    purpose: &'static str,
    sealed: &str,
    limit: usize,
) -> Option<T> {
    if sealed.len() > limit {
        return None;
    }
    let (text, tag) = sealed.split_once('.')?;
    let (text, tag) = (
        URL_SAFE_NO_PAD.decode(text).ok()?,
        URL_SAFE_NO_PAD.decode(tag).ok()?,
    );
    if !keys.verify_derived(purpose, &text, &tag) {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn s8_a_sealed_string_of_another_purpose_or_with_one_bit_changed_does_not_open() {
        let keys = Keys::new(Secret::new("k"), None);
        let sealed = seal(&keys, "cursor", &("tools", 7));
        assert_eq!(
            open::<(String, u32)>(&keys, "cursor", &sealed),
            Some(("tools".to_owned(), 7))
        );
        assert_eq!(open::<(String, u32)>(&keys, "other", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            assert_eq!(
                open::<(String, u32)>(&keys, "cursor", &changed),
                None,
                "byte {at}"
            );
        }
    }
}
