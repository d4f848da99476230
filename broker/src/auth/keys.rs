//! The gateway's HMAC keys: signing with the current one, verifying with the current or the previous one (S28), and
//! keys derived per purpose, so that a tag made for one purpose means nothing for another.

use crate::secret::Secret;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

/// The one header that our tokens have: an algorithm that is not negotiated cannot be confused.
const TOKEN_HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 4096;

/// One key with what follows from it, made once: requests only feed their message in.
struct Key {
    secret: Secret,
    keyed: HmacSha256,
    /// By purpose; there are as many as constants in this crate.
    derived: ArcSwap<Vec<(&'static str, HmacSha256)>>,
}

impl Key {
    fn new(secret: Secret) -> Self {
        Self {
            keyed: keyed(secret.expose().as_bytes()),
            secret,
            derived: ArcSwap::default(),
        }
    }

    fn mac(&self, message: &[u8]) -> HmacSha256 {
        self.keyed.clone().chain_update(message)
    }

    fn derived(&self, purpose: &'static str, message: &[u8]) -> HmacSha256 {
        let known = self.derived.load();
        if let Some((_, derived)) = known.iter().find(|(known, _)| *known == purpose) {
            return derived.clone().chain_update(message);
        }
        let derived = keyed(&self.mac(purpose.as_bytes()).finalize().into_bytes());
        self.derived.rcu(|known| {
            let mut known = known.as_ref().clone();
            known.push((purpose, derived.clone()));
            known
        });
        derived.chain_update(message)
    }
}

/// Current and previous key.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
}

impl Keys {
    /// Keys of at least 32 bytes, checked where they are read.
    pub fn new(current: Secret, previous: Option<Secret>) -> Self {
        Self {
            current: Key::new(current),
            previous: previous.map(Key::new),
        }
    }

    /// The current key, for derivations of other modules.
    pub(super) fn current(&self) -> &Secret {
        &self.current.secret
    }

    /// The current key and the previous one.
    pub(super) fn all(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current)
            .chain(self.previous.as_ref())
            .map(|key| &key.secret)
    }

    /// HMAC-SHA-256 with the current key.
    pub fn tag(&self, message: &[u8]) -> [u8; 32] {
        self.current.mac(message).finalize().into_bytes().into()
    }

    /// HMAC-SHA-256 under a key derived for `purpose` from the current key.
    pub fn derived_tag(&self, purpose: &'static str, message: &[u8]) -> [u8; 32] {
        self.current
            .derived(purpose, message)
            .finalize()
            .into_bytes()
            .into()
    }

    /// As [`Keys::derived_tag`], from the previous key; `None` when there is none.
    pub fn former_tag(&self, purpose: &'static str, message: &[u8]) -> Option<[u8; 32]> {
        let previous = self.previous.as_ref()?;
        Some(previous.derived(purpose, message).finalize().into_bytes().into())
    }

    /// Verifies a derived tag, or its first bytes (at least 16), with either key in constant time.
    pub fn verify_derived(&self, purpose: &'static str, message: &[u8], tag: &[u8]) -> bool {
        tag.len() >= 16 && self.each(|key| key.derived(purpose, message).verify_truncated_left(tag).is_ok())
    }

    /// A compact JWS of `claims` (JSON text).
    pub fn sign(&self, claims: &str) -> String {
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(TOKEN_HEADER),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let tag = self.tag(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(tag));
        token
    }

    /// The claims of a token that one of the keys signed; `None` for everything else.
    pub fn verify(&self, token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, tag) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        if URL_SAFE_NO_PAD.decode(header).ok()? != TOKEN_HEADER.as_bytes() {
            return None;
        }
        self.each(|key| key.mac(signed.as_bytes()).verify_slice(&tag).is_ok())
            .then(|| URL_SAFE_NO_PAD.decode(claims).ok())?
    }

    fn each(&self, check: impl Fn(&Key) -> bool) -> bool {
        check(&self.current) || self.previous.as_ref().is_some_and(check)
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(current: &str, previous: Option<&str>) -> Keys {
        Keys::new(Secret::new(current), previous.map(Secret::new))
    }

    #[test]
    fn s28_a_rotated_key_verifies_only_as_the_previous_key() {
        let token = keys("old", None).sign("{}");
        assert!(keys("new", Some("old")).verify(&token).is_some());
        assert!(keys("new", None).verify(&token).is_none());
        let tag = keys("old", None).derived_tag("p", b"m");
        assert!(keys("new", Some("old")).verify_derived("p", b"m", &tag[..16]));
        assert!(!keys("new", Some("old")).verify_derived("q", b"m", &tag[..16]));
        assert!(
            !keys("old", None).verify_derived("p", b"m", &tag[..8]),
            "a short tag proves nothing"
        );
    }

    #[test]
    fn a_token_with_another_header_or_one_changed_bit_is_refused() {
        let keys = keys("k", None);
        let token = keys.sign("{}");
        assert_eq!(keys.verify(&token).unwrap(), b"{}");
        let none = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert!(keys.verify(&none).is_none());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            assert!(keys.verify(&changed).is_none(), "byte {at}");
        }
    }
}
