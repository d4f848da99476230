//! Public keys of an issuer: a JWK set or one JWK (operator.md 10.1, 10.3). A set that holds a private or symmetric key
//! is refused whole: it was meant to stay secret.

use super::jwt::TokenError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
pub use mcp_gateway_api::auth_policy::Algorithm;
use p521::ecdsa::signature::Verifier as _;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Largest document, bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;
/// Keys that are kept of one set.
const MAX_KEYS: usize = 100;
/// Members that only private and symmetric keys have.
const SECRET_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

fn of_library(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    use jsonwebtoken::Algorithm as Library;
    Some(match algorithm {
        Algorithm::RS256 => Library::RS256,
        Algorithm::RS384 => Library::RS384,
        Algorithm::RS512 => Library::RS512,
        Algorithm::PS256 => Library::PS256,
        Algorithm::PS384 => Library::PS384,
        Algorithm::PS512 => Library::PS512,
        Algorithm::ES256 => Library::ES256,
        Algorithm::ES384 => Library::ES384,
        Algorithm::EdDSA => Library::EdDSA,
        Algorithm::ES512 => return None,
    })
}

/// The `kty` and, for curves, the `crv` that the algorithm needs.
fn key_type(algorithm: Algorithm) -> (&'static str, Option<&'static str>) {
    match algorithm {
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => ("RSA", None),
        Algorithm::ES256 => ("EC", Some("P-256")),
        Algorithm::ES384 => ("EC", Some("P-384")),
        Algorithm::ES512 => ("EC", Some("P-521")),
        Algorithm::EdDSA => ("OKP", Some("Ed25519")),
    }
}

/// Why a key document cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Neither a JWK set nor a JWK.
    #[error("not a JWK set and not a JWK")]
    Shape,
    /// A private or symmetric key is in it.
    #[error("holds a private or symmetric key")]
    Secret,
    /// No key can verify a signature.
    #[error("holds no usable signature key")]
    Empty,
    /// Too large or too many keys.
    #[error("is too large")]
    TooLarge,
}

/// Keys of one issuer.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids = self.keys.iter().map(|key| key.kid.as_deref().unwrap_or("-"));
        f.debug_set().entries(kids).finish()
    }
}

/// One public key.
pub struct Key {
    kid: Option<String>,
    algorithm: Option<String>,
    kind: String,
    curve: Option<String>,
    material: Material,
}

enum Material {
    Library(DecodingKey),
    P521(Box<p521::ecdsa::VerifyingKey>),
}

impl KeySet {
    /// Reads a JWK set or a single JWK. Keys for other uses and of unknown types are left out.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.len() > MAX_DOCUMENT {
            return Err(KeySetError::TooLarge);
        }
        let Ok(Value::Object(document)) = serde_json::from_str(text) else {
            return Err(KeySetError::Shape);
        };
        let members = match document.get("keys") {
            Some(Value::Array(keys)) => keys.clone(),
            Some(_) => return Err(KeySetError::Shape),
            None if document.contains_key("kty") => vec![Value::Object(document)],
            None => return Err(KeySetError::Shape),
        };
        if members.len() > MAX_KEYS {
            return Err(KeySetError::TooLarge);
        }
        let mut keys = Vec::with_capacity(members.len());
        for member in &members {
            let Value::Object(member) = member else {
                return Err(KeySetError::Shape);
            };
            let symmetric = text_of(member, "kty") == Some("oct");
            if symmetric || SECRET_MEMBERS.iter().any(|name| member.contains_key(*name)) {
                return Err(KeySetError::Secret);
            }
            keys.extend(Key::new(member));
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self { keys })
    }

    /// The key of this `kid` when it fits the algorithm; without a `kid` the only key that fits.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] and [`TokenError::Algorithm`].
    pub fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, TokenError> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        let Some(kid) = kid else {
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                (None, _) => Err(TokenError::Algorithm),
                (Some(_), Some(_)) => Err(TokenError::UnknownKey),
            };
        };
        fitting
            .find(|key| key.kid.as_deref() == Some(kid))
            .ok_or_else(|| {
                let known = self.keys.iter().any(|key| key.kid.as_deref() == Some(kid));
                if known {
                    TokenError::Algorithm
                } else {
                    TokenError::UnknownKey
                }
            })
    }
}

impl Key {
    fn new(member: &Map<String, Value>) -> Option<Self> {
        let for_signatures = text_of(member, "use").is_none_or(|used| used == "sig");
        let operations = member.get("key_ops").and_then(Value::as_array);
        let may_verify = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !for_signatures || !may_verify {
            return None;
        }
        let kind = text_of(member, "kty")?.to_owned();
        let curve = text_of(member, "crv").map(str::to_owned);
        let material = if curve.as_deref() == Some("P-521") {
            Material::P521(Box::new(p521_key(member)?))
        } else {
            let jwk = Jwk::deserialize(Value::Object(member.clone())).ok()?;
            Material::Library(DecodingKey::from_jwk(&jwk).ok()?)
        };
        Some(Self {
            kid: text_of(member, "kid").map(str::to_owned),
            algorithm: text_of(member, "alg").map(str::to_owned),
            kind,
            curve,
            material,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let (kind, curve) = key_type(algorithm);
        self.kind == kind
            && (curve.is_none() || self.curve.as_deref() == curve)
            && self
                .algorithm
                .as_deref()
                .is_none_or(|own| Algorithm::named(own) == Some(algorithm))
    }

    /// True when `signature` (base64url) is this key's over `signed`.
    pub fn verifies(&self, algorithm: Algorithm, signed: &str, signature: &str) -> bool {
        match (&self.material, of_library(algorithm)) {
            (Material::Library(key), Some(algorithm)) => {
                jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, algorithm).unwrap_or(false)
            }
            (Material::P521(key), None) => {
                let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
                p521::ecdsa::Signature::from_slice(&bytes)
                    .is_ok_and(|signature| key.verify(signed.as_bytes(), &signature).is_ok())
            }
            _ => false,
        }
    }
}

fn p521_key(member: &Map<String, Value>) -> Option<p521::ecdsa::VerifyingKey> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = URL_SAFE_NO_PAD.decode(text_of(member, name)?).ok()?;
        (coordinate.len() == 66).then_some(())?;
        point.extend(coordinate);
    }
    p521::ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()
}

fn text_of<'a>(member: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member.get(name).and_then(Value::as_str)
}
