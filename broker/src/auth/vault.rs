//! Per-user tokens at rest (data-plane.md 11.5, S14): AES-256-GCM under a key derived from the signing key, bound to the
//! client session and the server, so that a ciphertext moved elsewhere does not open.

use super::keys::Keys;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use uuid::Uuid;

const INFO: &[u8] = b"mcp-gateway-user-token-encryption";
/// Longest ciphertext that is looked at, characters.
const MAX_SEALED: usize = 8 * 1024;

fn key(secret: &Secret) -> Option<LessSafeKey> {
    let derived = Salt::new(HKDF_SHA256, &[]).extract(secret.expose().as_bytes());
    let info = [INFO];
    let material = derived.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(material)))
}

fn bound_to(jti: Uuid, server: &str) -> Aad<Vec<u8>> {
    Aad::from([jti.as_bytes(), server.as_bytes()].concat())
}

/// Encrypts a token of `server` for a session; `None` only when the system has no randomness.
pub fn seal(keys: &Keys, jti: Uuid, server: &str, token: &Secret) -> Option<String> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).ok()?;
    let mut bytes = token.expose().as_bytes().to_vec();
    key(keys.current())?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            bound_to(jti, server),
            &mut bytes,
        )
        .ok()?;
    Some(STANDARD.encode([nonce.as_slice(), &bytes].concat()))
}

/// The token, unless it is of another session or server, was changed, or is a JWT past its `exp`.
pub fn open(keys: &Keys, jti: Uuid, server: &str, sealed: &str, now: u64) -> Option<Secret> {
    let bytes = STANDARD
        .decode(Some(sealed).filter(|text| text.len() <= MAX_SEALED)?)
        .ok()?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
    let token = keys.all().find_map(|secret| {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = sealed.to_vec();
        let plain = key(secret)?
            .open_in_place(nonce, bound_to(jti, server), &mut bytes)
            .ok()?;
        String::from_utf8(plain.to_vec()).ok()
    })?;
    (!has_expired(&token, now)).then(|| Secret::new(token))
}

/// True for a JWT, with or without a scheme before it, whose `exp` has passed. What is no JWT never expires.
fn has_expired(token: &str, now: u64) -> bool {
    #[derive(Deserialize)]
    struct Expiry {
        exp: f64,
    }
    let jwt = token.rsplit(' ').next().unwrap_or_default();
    let claims = jwt.split('.').nth(1).filter(|_| jwt.split('.').count() == 3);
    claims
        .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
        .and_then(|claims| serde_json::from_slice::<Expiry>(&claims).ok())
        .is_some_and(|claims| claims.exp <= now as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(current: &str, previous: Option<&str>) -> Keys {
        Keys::new(Secret::new(current), previous.map(Secret::new))
    }

    #[test]
    fn s14_a_token_opens_only_for_its_session_and_server_and_with_every_bit_in_place() {
        let (keys, jti) = (keys("k", None), Uuid::new_v4());
        let sealed = seal(&keys, jti, "ns/a", &Secret::new("Bearer hunter2")).unwrap();
        let opened = |jti, server: &str, sealed: &str| {
            open(&keys, jti, server, sealed, 0).map(|token| token.expose().to_owned())
        };
        assert_eq!(opened(jti, "ns/a", &sealed).as_deref(), Some("Bearer hunter2"));
        assert_eq!(opened(Uuid::new_v4(), "ns/a", &sealed), None);
        assert_eq!(opened(jti, "ns/b", &sealed), None);
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(opened(jti, "ns/a", &STANDARD.encode(&bytes)), None, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(opened(jti, "ns/a", "short"), None);
        assert_ne!(
            seal(&keys, jti, "ns/a", &Secret::new("Bearer hunter2")).unwrap(),
            sealed
        );
    }

    #[test]
    fn s28_a_token_sealed_with_the_previous_key_opens() {
        let jti = Uuid::new_v4();
        let sealed = seal(&keys("old", None), jti, "a", &Secret::new("t")).unwrap();
        assert!(open(&keys("new", Some("old")), jti, "a", &sealed, 0).is_some());
        assert!(open(&keys("new", None), jti, "a", &sealed, 0).is_none());
    }

    #[test]
    fn a_jwt_past_its_end_is_dropped_and_an_opaque_token_is_not() {
        let (keys, jti) = (keys("k", None), Uuid::new_v4());
        let jwt = format!("Bearer e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"exp":100}"#));
        let of = |token: &str, now| {
            let sealed = seal(&keys, jti, "a", &Secret::new(token)).unwrap();
            open(&keys, jti, "a", &sealed, now).is_some()
        };
        assert!(of(&jwt, 99) && !of(&jwt, 100));
        assert!(of("opaque", u64::MAX) && of("a.b.c", u64::MAX));
    }
}
