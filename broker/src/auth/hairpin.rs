//! The short-lived token that lets a request of our own through the gateway to a server's route (data-plane.md 9, S3).

use super::keys::Keys;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Mutex;
use uuid::Uuid;

const ISSUER: &str = "mcp-gateway";
const AUDIENCE: &str = "mcp-router";
/// Life of a token, seconds.
pub const LIFETIME: u64 = 30;
/// How often one token is accepted.
const USES: u8 = 4;
/// Tokens remembered at once; past it the oldest are forgotten first by their expiry, else the request is refused.
const REMEMBERED: usize = 100_000;

/// What a hairpin request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// `initialize` and `notifications/initialized`.
    BackendInit,
    /// DELETE of a backend session.
    BackendClose,
    /// A call that the gateway sends itself.
    BackendCall,
    /// A per-user list.
    UserList,
}

/// Claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HairpinClaims {
    iss: String,
    aud: Vec<String>,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: Uuid,
    /// Purpose.
    pub purpose: Purpose,
    /// The server's hostname.
    pub host: String,
    /// Path and query of the request.
    pub path: String,
    /// Server name, for the `x-mcp-servername` header.
    pub server: String,
    /// MCP method, for the `x-mcp-method` header.
    pub method: String,
    /// True when the request carries a token of its own that the server shall see.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_authorization: bool,
}

/// What a token opens.
pub struct Door<'a> {
    /// Purpose.
    pub purpose: Purpose,
    /// Hostname of the server.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Server name.
    pub server: &'a str,
    /// MCP method.
    pub method: &'a str,
    /// The request carries a token of the person for the server itself.
    pub own_authorization: bool,
}

/// Makes a token.
pub fn mint(keys: &Keys, door: &Door<'_>, now: u64) -> String {
    let claims = HairpinClaims {
        iss: ISSUER.to_owned(),
        aud: vec![AUDIENCE.to_owned()],
        exp: now.saturating_add(LIFETIME),
        nbf: now,
        iat: now,
        jti: Uuid::new_v4(),
        purpose: door.purpose,
        host: door.host.to_owned(),
        path: door.path.to_owned(),
        server: door.server.to_owned(),
        method: door.method.to_owned(),
        own_authorization: door.own_authorization,
    };
    keys.sign(&serde_json::to_string(&claims).expect("claims are plain strings and numbers"))
}

/// Uses of live tokens in this process.
#[derive(Default)]
pub struct UseCounter {
    used: Mutex<HashMap<Uuid, (u64, u8)>>,
}

impl UseCounter {
    fn admit(&self, jti: Uuid, exp: u64, now: u64) -> bool {
        let Ok(mut used) = self.used.lock() else {
            return false;
        };
        if used.len() >= REMEMBERED {
            used.retain(|_, (exp, _)| *exp > now);
        }
        if used.len() >= REMEMBERED && !used.contains_key(&jti) {
            return false;
        }
        let (_, count) = used.entry(jti).or_insert((exp, 0));
        *count = count.saturating_add(1);
        *count <= USES
    }
}

/// The claims of a token that opens `host` and `path` now. Whether the host is a configured server is the caller's check.
pub fn verify(
    keys: &Keys,
    uses: &UseCounter,
    token: &str,
    (host, path): (&str, &str),
    now: u64,
) -> Option<HairpinClaims> {
    let claims: HairpinClaims = serde_json::from_slice(&keys.verify(token)?).ok()?;
    let ours = claims.iss == ISSUER && claims.aud.iter().any(|audience| audience == AUDIENCE);
    let in_time = claims.exp > now && claims.nbf <= now.saturating_add(LIFETIME);
    let same_door = claims.host == host && claims.path == path;
    (ours && in_time && same_door && uses.admit(claims.jti, claims.exp, now)).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn s3_a_token_opens_one_host_and_path_for_thirty_seconds_and_four_uses() {
        let keys = Keys::new(Secret::new("k"), None);
        let door = Door {
            purpose: Purpose::BackendInit,
            host: "a",
            path: "/mcp",
            server: "ns/a",
            method: "initialize",
            own_authorization: false,
        };
        let token = mint(&keys, &door, 100);
        let check =
            |uses: &UseCounter, host, path, now| verify(&keys, uses, &token, (host, path), now).is_some();
        let uses = UseCounter::default();
        assert!(!check(&uses, "b", "/mcp", 100));
        assert!(!check(&uses, "a", "/mcp?x", 100));
        assert!(!check(&uses, "a", "/mcp", 130));
        for _ in 0..4 {
            assert!(check(&uses, "a", "/mcp", 129));
        }
        assert!(!check(&uses, "a", "/mcp", 129), "fifth use");
    }

    #[test]
    fn a_session_token_is_no_hairpin_token() {
        let keys = Keys::new(Secret::new("k"), None);
        let new = super::super::session::NewSession {
            version: "x",
            capabilities: String::new(),
            binding: None,
            length: std::time::Duration::from_secs(60),
        };
        let (session, _) = super::super::session::mint(&keys, new, 100);
        assert!(verify(&keys, &UseCounter::default(), &session, ("a", "/mcp"), 100).is_none());
    }
}
