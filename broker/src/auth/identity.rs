//! Whose request it is (data-plane.md 11.1). Without `authn` the token of the caller is read but not verified, and then
//! used for one thing only: equality with the binding of the session.

use super::keys::Keys;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

const MAX_TOKEN: usize = 16 * 1024;
const PURPOSE: &str = "session-binding";

#[derive(Deserialize)]
struct Subject {
    iss: String,
    sub: String,
}

/// What a session of one identity is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What is written into new sessions.
    pub current: String,
    /// What sessions have that were made under the previous key (S28).
    pub former: Option<String>,
}

impl Binding {
    /// True when this was made for the same identity, under the current or the previous key.
    pub fn is(&self, bound: &str) -> bool {
        self.current == bound || self.former.as_deref() == Some(bound)
    }
}

/// The binding of the caller with this `Authorization` value; `None` is the anonymous caller.
pub fn binding(keys: &Keys, authorization: Option<&str>) -> Option<Binding> {
    let subject = subject(authorization?)?;
    Some(binding_of(keys, (&subject.iss, &subject.sub)))
}

/// The binding of this issuer and subject.
pub fn binding_of(keys: &Keys, (issuer, subject): (&str, &str)) -> Binding {
    let message = [issuer.as_bytes(), &[0], subject.as_bytes()].concat();
    let text = |tag: [u8; 32]| {
        let (first, _) = tag.split_at(16);
        URL_SAFE_NO_PAD.encode(first)
    };
    Binding {
        current: text(keys.derived_tag(PURPOSE, &message)),
        former: keys.former_tag(PURPOSE, &message).map(text),
    }
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
        assert_eq!(alice.current.len(), 22);
        assert_eq!(of(r#"{"sub":"alice","iss":"i","exp":2}"#).unwrap(), alice);
        assert_ne!(of(r#"{"iss":"i","sub":"bob"}"#).unwrap(), alice);
        assert_ne!(of(r#"{"iss":"ia","sub":"lice"}"#).unwrap(), alice);
        assert_eq!(of(r#"{"iss":"i"}"#), None);
        assert_eq!(binding(&keys, Some("Bearer opaque")), None);
        assert_eq!(binding(&keys, Some("Basic dTpw")), None);
        assert_eq!(binding(&keys, None), None);
    }

    #[test]
    fn s28_a_binding_made_under_the_previous_key_is_known() {
        let secret = |text: &str| Secret::new(text);
        let before = binding_of(&Keys::new(secret("old"), None), ("i", "alice")).current;
        let rotated = Keys::new(secret("new"), Some(secret("old")));
        assert!(binding_of(&rotated, ("i", "alice")).is(&before));
        assert!(!binding_of(&rotated, ("i", "bob")).is(&before));
        assert!(!binding_of(&Keys::new(secret("new"), None), ("i", "alice")).is(&before));
    }
}
