//! Whose backend sessions serve a caller that has no session of its own (data-plane.md 9, S26): those of its identity, for
//! some minutes, and of nobody else. An anonymous caller gets one for a single call.

use super::identity::Binding;
use super::keys::Keys;
use super::session::{SessionClaims, internal};
use uuid::Uuid;

/// A key holds for this long; its sessions live as long again, so that a call at the end of it is not cut. Seconds.
const PERIOD: u64 = 300;

/// How long a token of a person is kept that no session ends. Seconds.
const PERSON: u64 = 24 * 3600;
const TOKENS: &str = "person";

/// Whose requests these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Shared by all requests of one caller.
    Caller(SessionClaims),
    /// For one request; what was opened ends with it.
    Once(SessionClaims),
}

impl Pool {
    /// The session on whose behalf servers are spoken to.
    pub fn claims(&self) -> &SessionClaims {
        match self {
            Self::Caller(claims) | Self::Once(claims) => claims,
        }
    }

    /// The session, when it ends with the request.
    pub fn once(&self) -> Option<&SessionClaims> {
        match self {
            Self::Once(claims) => Some(claims),
            Self::Caller(_) => None,
        }
    }
}

/// Tells callers apart: the binding of a verified identity, else a digest of the whole `authorization`; `None` is the
/// anonymous caller.
pub fn who(keys: &Keys, verified: Option<&str>, authorization: Option<&str>) -> Option<String> {
    match (verified, authorization) {
        (Some(binding), _) => Some(format!("i{binding}")),
        (None, Some(value)) => {
            let tag = keys.derived_tag("unverified-caller", value.as_bytes());
            let (first, _) = tag.split_at(16);
            Some(format!("a{}", hex::encode(first)))
        }
        (None, None) => None,
    }
}

/// The pool of a caller at `now` (Unix seconds). `verified` is the binding of a verified identity; without one the whole
/// `authorization` tells callers apart, because nobody vouches for what it says. `nonce` is new for each request.
pub fn pool(
    keys: &Keys,
    (verified, authorization): (Option<&str>, Option<&str>),
    (now, nonce): (u64, Uuid),
) -> Pool {
    let period = now / PERIOD;
    let expires = (period + 2) * PERIOD;
    let Some(who) = who(keys, verified, authorization) else {
        return Pool::Once(internal(nonce, expires, None));
    };
    let message = format!("{period}\0{who}");
    let tag = keys.derived_tag("session-pool", message.as_bytes());
    let (first, _) = tag.split_at(16);
    let jti = Uuid::from_slice(first).unwrap_or(nonce);
    Pool::Caller(internal(jti, expires, verified.map(str::to_owned)))
}

/// Where the tokens of one person are kept that has no session.
pub struct Person {
    /// Where a new one goes.
    pub current: SessionClaims,
    /// Where one is that was left under the previous key (S28).
    pub former: Option<SessionClaims>,
}

/// On whose behalf servers are spoken to that want a token of the person, when the client has no session: the verified
/// identity's own, the same for all its requests, so that the token is found again. `verified` is its binding.
pub fn person(keys: &Keys, verified: &Binding, now: u64) -> Option<Person> {
    let claims = |tag: [u8; 32], binding: &str| {
        let (first, _) = tag.split_at(16);
        let jti = Uuid::from_slice(first).ok()?;
        let expires = now.saturating_add(PERSON);
        Some(internal(jti, expires, Some(binding.to_owned())))
    };
    let current = keys.derived_tag(TOKENS, verified.current.as_bytes());
    let former = verified.former.as_deref().and_then(|binding| {
        let tag = keys.former_tag(TOKENS, binding.as_bytes())?;
        claims(tag, binding)
    });
    Some(Person {
        current: claims(current, &verified.current)?,
        former,
    })
}

/// On whose behalf servers are asked for what they list for one caller alone.
#[derive(Clone, Debug)]
pub struct Behalf {
    /// The caller's session, or the one that serves it.
    pub session: SessionClaims,
    /// Where the caller's tokens for servers are, the newest place first; nowhere for one whom nobody verified.
    pub tokens: Vec<SessionClaims>,
}

impl Behalf {
    /// Of a client with a session, which keeps its tokens, too.
    pub fn of_session(claims: &SessionClaims) -> Self {
        Self {
            session: claims.clone(),
            tokens: vec![claims.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::binding_of;
    use crate::secret::Secret;

    #[test]
    fn s26_pool_sessions_are_never_shared_between_identities() {
        let keys = Keys::new(Secret::new("k"), None);
        let of = |verified, authorization, now| {
            let pool = pool(&keys, (verified, authorization), (now, Uuid::new_v4()));
            pool.claims().jti
        };
        assert_eq!(
            of(Some("alice"), Some("Bearer 1"), 0),
            of(Some("alice"), Some("Bearer 2"), 299)
        );
        let different = [
            of(Some("alice"), None, 0),
            of(Some("bob"), None, 0),
            of(None, Some("alice"), 0),
            of(None, Some("bob"), 0),
            of(Some("alice"), None, 300),
            of(None, None, 0),
            of(None, None, 0),
        ];
        for (at, jti) in different.iter().enumerate() {
            assert!(!different.iter().skip(at + 1).any(|other| other == jti), "{at}");
        }
    }

    #[test]
    fn s26_the_token_of_a_person_is_kept_for_that_identity_alone() {
        let keys = Keys::new(Secret::new("k"), None);
        let binding = |who| binding_of(&keys, ("issuer", who));
        let of = |who, now| person(&keys, &binding(who), now).unwrap().current;
        assert_eq!(of("alice", 0).jti, of("alice", 100_000).jti);
        assert_ne!(of("alice", 0).jti, of("bob", 0).jti);
        assert_eq!(
            (of("alice", 7).exp, of("alice", 7).bnd),
            (86_407, Some(binding("alice").current))
        );
    }

    #[test]
    fn s28_what_a_person_left_under_the_previous_key_is_found() {
        let of = |keys: &Keys, who| person(keys, &binding_of(keys, ("issuer", who)), 0).unwrap();
        let before = of(&Keys::new(Secret::new("old"), None), "alice");
        assert!(before.former.is_none());
        let rotated = Keys::new(Secret::new("new"), Some(Secret::new("old")));
        let after = of(&rotated, "alice");
        assert_ne!(after.current.jti, before.current.jti);
        assert_eq!(after.former.unwrap().jti, before.current.jti);
        assert_ne!(of(&rotated, "bob").former.unwrap().jti, before.current.jti);
    }

    #[test]
    fn s26_a_pool_session_offers_nothing_that_a_client_declared() {
        let keys = Keys::new(Secret::new("k"), None);
        let pool = pool(&keys, (Some("alice"), None), (10, Uuid::new_v4()));
        assert_eq!((pool.claims().cap.as_str(), pool.claims().exp), ("", 600));
        assert!(pool.once().is_none());
    }
}
