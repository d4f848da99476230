//! `x-mcp-authorized` (data-plane.md 11.4): a signed statement of which items a caller may see. What cannot be verified
//! shows nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Longest header that is looked at, bytes.
const MAX_TOKEN: usize = 64 * 1024;
/// Clocks of the issuer and ours may differ by this much, seconds.
const LEEWAY: u64 = 30;
/// A SubjectPublicKeyInfo of P-256 begins so; the uncompressed point follows.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT: usize = 65;

/// Original names by server name.
pub type ByServer = BTreeMap<String, BTreeSet<String>>;

/// What a verified header allows; `None` for a kind says nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Allowed {
    /// Tools.
    pub tools: Option<ByServer>,
    /// Prompts.
    pub prompts: Option<ByServer>,
    /// Resources and resource templates.
    pub resources: Option<ByServer>,
}

/// What a caller may see because of the header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Capabilities {
    /// The header says nothing.
    #[default]
    Unfiltered,
    /// Nothing at all.
    Nothing,
    /// What it lists.
    Only(Arc<Allowed>),
}

/// Key that verifies the header.
#[derive(Clone)]
pub struct CapabilityKey(Vec<u8>);

/// The key is no P-256 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PEM public key (SubjectPublicKeyInfo) of the curve P-256 is expected")]
pub struct BadKey;

impl CapabilityKey {
    /// Reads a PEM public key.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey)?;
        let point = der.as_ref().strip_prefix(&P256_PREFIX).ok_or(BadKey)?;
        // 4: an uncompressed point.
        (point.len() == POINT && point.first() == Some(&4))
            .then(|| Self(point.to_vec()))
            .ok_or(BadKey)
    }
}

/// How the header is read.
#[derive(Clone, Default)]
pub struct CapabilityRules {
    /// Key; without one no header is good.
    pub key: Option<CapabilityKey>,
    /// Without a header, and for kinds that it does not name, nothing is visible.
    pub enforce: bool,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
    nbf: Option<u64>,
    #[serde(rename = "allowed-capabilities")]
    allowed: String,
}

impl CapabilityRules {
    /// Reads all values of the header.
    pub fn read(&self, values: &[String], now: u64) -> Capabilities {
        match values {
            [] if self.enforce => Capabilities::Nothing,
            [] => Capabilities::Unfiltered,
            [token] => match self.verified(token, now) {
                Some(allowed) => Capabilities::Only(Arc::new(allowed)),
                None => Capabilities::Nothing,
            },
            _ => Capabilities::Nothing,
        }
    }

    fn verified(&self, token: &str, now: u64) -> Option<Allowed> {
        let key = self.key.as_ref().filter(|_| token.len() <= MAX_TOKEN)?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != "ES256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.0)
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let expired = claims.exp.is_some_and(|exp| exp.saturating_add(LEEWAY) <= now);
        let early = claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY));
        if expired || early {
            return None;
        }
        let mut allowed: Allowed = serde_json::from_str(&claims.allowed).ok()?;
        if self.enforce {
            for kind in [&mut allowed.tools, &mut allowed.prompts, &mut allowed.resources] {
                kind.get_or_insert_default();
            }
        }
        Some(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    fn key() -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
    }

    fn rules(key: &EcdsaKeyPair, enforce: bool) -> CapabilityRules {
        let spki = [P256_PREFIX.as_slice(), key.public_key().as_ref()].concat();
        CapabilityRules {
            key: Some(CapabilityKey::from_pem(&pem(&spki)).unwrap()),
            enforce,
        }
    }

    fn pem(spki: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(spki);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    fn token(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    const ES256: &str = r#"{"alg":"ES256"}"#;

    fn claims(allowed: &str) -> String {
        serde_json::json!({"exp": 1000, "allowed-capabilities": allowed}).to_string()
    }

    #[test]
    fn s19_only_es256_of_the_configured_key_in_its_time_is_believed() {
        let (key, other) = (key(), key());
        let rules = rules(&key, false);
        let read = |token: &str, now| rules.read(&[token.to_owned()], now);
        let good = token(&key, ES256, &claims(r#"{"tools":{"ns/a":["x"]}}"#));
        let Capabilities::Only(allowed) = read(&good, 900) else {
            panic!("refused");
        };
        assert_eq!(
            allowed.tools.as_ref().unwrap()["ns/a"],
            BTreeSet::from(["x".to_owned()])
        );
        assert_eq!(allowed.prompts, None);
        assert_eq!(
            read(&good, 1030),
            Capabilities::Nothing,
            "expired beyond the leeway"
        );
        for bad in [
            token(&other, ES256, &claims("{}")),
            token(&key, r#"{"alg":"none"}"#, &claims("{}")),
            token(&key, r#"{"alg":"HS256"}"#, &claims("{}")),
            token(&key, ES256, &claims("[]x")),
            token(&key, ES256, r#"{"exp":1000}"#),
            token(&key, ES256, r#"{"nbf":1000,"allowed-capabilities":"{}"}"#),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert_eq!(read(&bad, 900), Capabilities::Nothing, "{bad}");
        }
        for at in (0..good.len()).step_by(7) {
            let mut changed = good.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(read(&changed, 900), Capabilities::Nothing, "byte {at}");
        }
    }

    #[test]
    fn s10_without_key_repeated_or_under_enforcement_nothing_is_visible() {
        let key = key();
        let good = token(&key, ES256, &claims("{}"));
        let without = CapabilityRules::default();
        assert_eq!(without.read(&[], 900), Capabilities::Unfiltered);
        assert_eq!(
            without.read(std::slice::from_ref(&good), 900),
            Capabilities::Nothing
        );
        assert_eq!(
            rules(&key, false).read(&[good.clone(), good.clone()], 900),
            Capabilities::Nothing
        );
        assert_eq!(rules(&key, true).read(&[], 900), Capabilities::Nothing);
        let Capabilities::Only(allowed) = rules(&key, true).read(&[good], 900) else {
            panic!("refused");
        };
        assert_eq!(
            allowed.prompts,
            Some(ByServer::new()),
            "an absent kind shows nothing"
        );
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let mut spki = [P256_PREFIX.as_slice(), key().public_key().as_ref()].concat();
        assert!(CapabilityKey::from_pem(&pem(&spki[..spki.len() - 1])).is_err());
        spki[20] ^= 1;
        assert!(CapabilityKey::from_pem(&pem(&spki)).is_err());
        assert!(CapabilityKey::from_pem("nonsense").is_err());
    }
}
