//! Whose request it is (data-plane.md 11.1). Without `authn` the token of the caller is read but not verified, and then
//! used for one thing only: equality with the binding of the session.

use super::keys::Keys;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

const MAX_TOKEN: usize = 16 * 1024;

#[derive(Deserialize)]
struct Subject {
    iss: String,
    sub: String,
}

/// The binding of the caller with this `Authorization` value; `None` is the anonymous caller.
pub fn binding(keys: &Keys, authorization: Option<&str>) -> Option<String> {
    let subject = subject(authorization?)?;
    Some(binding_of(keys, (&subject.iss, &subject.sub)))
}

/// The binding of this issuer and subject.
pub fn binding_of(keys: &Keys, (issuer, subject): (&str, &str)) -> String {
    let message = [issuer.as_bytes(), &[0], subject.as_bytes()].concat();
    let tag = keys.derived_tag("session-binding", &message);
    let (first, _) = tag.split_at(16);
    URL_SAFE_NO_PAD.encode(first)
}

/// The `sub` of a token that nobody has verified, for the audit record only.
pub fn unverified_subject(authorization: Option<&str>) -> Option<String> {
    Some(subject(authorization?)?.sub)
}

fn subject(authorization: &str) -> Option<Subject> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn bearer(claims: &str) -> String {
        format!("Bearer e30.{}.x", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_binding_is_issuer_and_subject_and_nothing_else() {
        let keys = Keys::new(Secret::new("k"), None);
        let of = |claims: &str| binding(&keys, Some(&bearer(claims)));
        let alice = of(r#"{"iss":"i","sub":"alice","exp":1}"#).unwrap();
        assert_eq!(alice.len(), 22);
        assert_eq!(of(r#"{"sub":"alice","iss":"i","exp":2}"#).unwrap(), alice);
        assert_ne!(of(r#"{"iss":"i","sub":"bob"}"#).unwrap(), alice);
        assert_ne!(of(r#"{"iss":"ia","sub":"lice"}"#).unwrap(), alice);
        assert_eq!(of(r#"{"iss":"i"}"#), None);
        assert_eq!(binding(&keys, Some("Bearer opaque")), None);
        assert_eq!(binding(&keys, Some("Basic dTpw")), None);
        assert_eq!(binding(&keys, None), None);
    }
}
