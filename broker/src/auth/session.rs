//! The client session token of the legacy era (data-plane.md 4.4): a JWT that carries everything a replica needs.

use super::identity::Binding;
use super::keys::Keys;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

const ISSUER: &str = "mcp-gateway";
const LEEWAY: u64 = 30;

/// Claims in the order of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaims {
    iss: String,
    aud: Vec<String>,
    /// End of the session, Unix seconds.
    pub exp: u64,
    nbf: u64,
    iat: u64,
    /// Identity of the session: the only form of it in logs, metrics and stores.
    pub jti: Uuid,
    /// Negotiated protocol version.
    pub ver: String,
    /// Capabilities of the client, one letter each.
    #[serde(default)]
    pub cap: String,
    /// Identity binding; absent for anonymous sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bnd: Option<String>,
}

/// A new session.
pub struct NewSession<'a> {
    /// Negotiated version.
    pub version: &'a str,
    /// Capability letters.
    pub capabilities: String,
    /// Identity binding.
    pub binding: Option<String>,
    /// Lifetime.
    pub length: Duration,
}

/// Makes a session token; returns it with its claims.
pub fn mint(keys: &Keys, new: NewSession<'_>, now: u64) -> (String, SessionClaims) {
    let claims = SessionClaims {
        iss: ISSUER.to_owned(),
        aud: vec![ISSUER.to_owned()],
        exp: now.saturating_add(new.length.as_secs()),
        nbf: now,
        iat: now,
        jti: Uuid::new_v4(),
        ver: new.version.to_owned(),
        cap: new.capabilities,
        bnd: new.binding,
    };
    let text = serde_json::to_string(&claims).expect("claims are plain strings and numbers");
    (keys.sign(&text), claims)
}

/// The session on whose behalf the gateway speaks to servers with sessions for a client that has none: it can be asked
/// nothing, and no token of it exists.
pub fn internal(jti: Uuid, expires: u64, binding: Option<String>) -> SessionClaims {
    SessionClaims {
        iss: ISSUER.to_owned(),
        aud: Vec::new(),
        exp: expires,
        nbf: 0,
        iat: 0,
        jti,
        ver: crate::protocol::version::LATEST_LEGACY.to_owned(),
        cap: String::new(),
        bnd: binding,
    }
}

/// The claims of a valid token of the caller with this binding. Every flaw has the same answer, `None`: 404.
/// Revocation is the store's.
pub fn verify(keys: &Keys, token: &str, caller: Option<&Binding>, now: u64) -> Option<SessionClaims> {
    let claims: SessionClaims = serde_json::from_slice(&keys.verify(token)?).ok()?;
    let ours = claims.iss == ISSUER && claims.aud.iter().any(|audience| audience == ISSUER);
    let in_time = claims.exp > now && claims.nbf <= now.saturating_add(LEEWAY);
    let owned = match (&claims.bnd, caller) {
        (None, None) => true,
        (Some(bound), Some(caller)) => caller.is(bound),
        _ => false,
    };
    (ours && in_time && owned).then_some(claims)
}

/// The claims of a token that was made here, whoever has it: for the gateway's own use of a session that it keeps for a client.
pub fn minted(keys: &Keys, token: &str) -> Option<SessionClaims> {
    serde_json::from_slice(&keys.verify(token)?).ok()
}

/// Capability letters of an `initialize` (data-plane.md 4.4).
pub fn capability_letters(capabilities: &serde_json::Value) -> String {
    let object = |pointer: &str| {
        capabilities
            .pointer(pointer)
            .is_some_and(serde_json::Value::is_object)
    };
    let mut letters = String::new();
    if object("/elicitation") {
        // An empty object means the form mode, as before the modes had names.
        let named = object("/elicitation/form") || object("/elicitation/url");
        if object("/elicitation/form") || !named {
            letters.push('e');
        }
        if object("/elicitation/url") {
            letters.push('u');
        }
    }
    for (pointer, letter) in [
        ("/sampling", 's'),
        ("/sampling/tools", 't'),
        ("/sampling/context", 'x'),
        ("/roots", 'r'),
    ] {
        if object(pointer) {
            letters.push(letter);
        }
    }
    if capabilities
        .pointer("/roots/listChanged")
        .is_some_and(|value| value == true)
    {
        letters.push('l');
    }
    letters
}

/// The capabilities that letters stand for, as `initialize` of this version spells them: the reverse of
/// [`capability_letters`].
pub fn capabilities(letters: &str, version: &str) -> serde_json::Value {
    let has = |letter| letters.contains(letter);
    let modes = |pairs: &[(char, &str)]| {
        let named = pairs.iter().filter(|(letter, _)| has(*letter));
        serde_json::Value::Object(
            named
                .map(|(_, name)| ((*name).to_owned(), serde_json::json!({})))
                .collect(),
        )
    };
    let mut found = serde_json::Map::new();
    if has('e') || has('u') {
        // The modes have names since 2025-11-25.
        let modes = if version >= "2025-11-25" {
            modes(&[('e', "form"), ('u', "url")])
        } else {
            modes(&[])
        };
        found.insert("elicitation".to_owned(), modes);
    }
    if has('s') {
        found.insert("sampling".to_owned(), modes(&[('t', "tools"), ('x', "context")]));
    }
    if has('r') {
        let changes = has('l').then(|| ("listChanged".to_owned(), serde_json::Value::Bool(true)));
        found.insert("roots".to_owned(), changes.into_iter().collect());
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::binding_of;
    use crate::secret::Secret;
    use base64::Engine as _;

    fn keys() -> Keys {
        Keys::new(Secret::new("0123456789abcdef0123456789abcdef"), None)
    }

    fn new(binding: Option<&str>) -> NewSession<'static> {
        NewSession {
            version: "2025-11-25",
            capabilities: "e".into(),
            binding: binding.map(str::to_owned),
            length: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_token_has_the_contracts_header_and_claim_order() {
        let (token, _) = mint(&keys(), new(Some("b")), 1000);
        let decode = |part: usize| {
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(token.split('.').nth(part).unwrap())
                .unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(decode(0), r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = decode(1);
        let at = |member: &str| {
            claims
                .find(&format!("\"{member}\":"))
                .unwrap_or_else(|| panic!("{member} in {claims}"))
        };
        let order = ["iss", "aud", "exp", "nbf", "iat", "jti", "ver", "cap", "bnd"].map(at);
        assert!(order.is_sorted(), "{claims}");
    }

    #[test]
    fn d16_expired_early_and_foreign_tokens_are_no_sessions() {
        let (token, _) = mint(&keys(), new(None), 1000);
        assert!(verify(&keys(), &token, None, 1059).is_some());
        assert!(verify(&keys(), &token, None, 1060).is_none(), "expired");
        assert!(
            verify(&keys(), &token, None, 969).is_none(),
            "not yet valid beyond the leeway"
        );
        assert!(verify(&keys(), &token, None, 970).is_some(), "leeway");
        let hairpin = keys().sign(r#"{"iss":"mcp-gateway","aud":["mcp-router"],"exp":9999,"nbf":0,"iat":0,"jti":"00000000-0000-4000-8000-000000000000","ver":"x"}"#);
        assert!(verify(&keys(), &hairpin, None, 1000).is_none(), "other audience");
        let eternal = keys().sign(r#"{"iss":"mcp-gateway","aud":["mcp-gateway"],"nbf":0,"iat":0,"jti":"00000000-0000-4000-8000-000000000000","ver":"x"}"#);
        assert!(verify(&keys(), &eternal, None, 1000).is_none(), "exp is required");
    }

    #[test]
    fn s7_a_session_belongs_to_one_identity_or_to_nobody() {
        let of = |subject| binding_of(&keys(), ("issuer", subject));
        let (alice, bob) = (of("alice"), of("bob"));
        let (bound, _) = mint(&keys(), new(Some(&alice.current)), 1000);
        let (free, _) = mint(&keys(), new(None), 1000);
        assert!(verify(&keys(), &bound, Some(&alice), 1000).is_some());
        assert!(verify(&keys(), &bound, Some(&bob), 1000).is_none());
        assert!(verify(&keys(), &bound, None, 1000).is_none());
        assert!(verify(&keys(), &free, Some(&alice), 1000).is_none());
    }

    #[test]
    fn s28_a_session_of_an_identity_outlives_a_rotation_of_the_key() {
        let rotated = Keys::new(
            Secret::new("fedcba9876543210fedcba9876543210"),
            Some(Secret::new("0123456789abcdef0123456789abcdef")),
        );
        let bound = binding_of(&keys(), ("issuer", "alice")).current;
        let (token, _) = mint(&keys(), new(Some(&bound)), 1000);
        let of = |subject| binding_of(&rotated, ("issuer", subject));
        assert!(verify(&rotated, &token, Some(&of("alice")), 1000).is_some());
        assert!(verify(&rotated, &token, Some(&of("bob")), 1000).is_none());
    }

    #[test]
    fn capabilities_become_letters() {
        let value =
            serde_json::json!({"elicitation":{},"sampling":{"tools":{}},"roots":{"listChanged":true}});
        assert_eq!(capability_letters(&value), "estrl");
        assert_eq!(
            capability_letters(&serde_json::json!({"elicitation":{"url":{}}})),
            "u"
        );
        assert_eq!(capability_letters(&serde_json::json!({})), "");
        for letters in ["estrl", "u", "eu", "sx", "r", ""] {
            let named = capabilities(letters, "2025-11-25");
            assert_eq!(capability_letters(&named), letters);
        }
        assert_eq!(
            capabilities("erl", "2025-06-18"),
            serde_json::json!({"elicitation": {}, "roots": {"listChanged": true}})
        );
    }
}
