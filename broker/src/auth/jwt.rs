//! Tokens of callers: read strictly, so that no two parsers can see different claims, and checked against the keys of
//! one issuer (operator.md 10.3). Pure: the time is a parameter, keys come from [`super::jwks`].

use super::jwks::{Algorithm, KeySet};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_gateway_api::authorization::Claims;
use mcp_gateway_api::strict_json::{self, SameName};
use serde_json::{Map, Value};

/// Longest token that is looked at, bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Why a token is refused. The words go into metrics and logs, never to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url with a JSON object each, or a member occurs twice.
    #[error("malformed")]
    Malformed,
    /// Larger than [`MAX_TOKEN`].
    #[error("too_large")]
    TooLarge,
    /// `crit`, a nested token, or something else that must be understood and is not.
    #[error("unsupported")]
    Unsupported,
    /// No provider has this `iss`.
    #[error("issuer")]
    Issuer,
    /// The provider does not accept the algorithm, or no key fits it.
    #[error("algorithm")]
    Algorithm,
    /// No key has the `kid`.
    #[error("key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("signature")]
    Signature,
    /// `exp` is missing or past, `nbf` or `iat` lie in the future.
    #[error("time")]
    Time,
    /// `aud` holds no accepted audience.
    #[error("audience")]
    Audience,
}

/// Claims whose signature, times and audience were checked: only [`Unverified::verify`] makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedClaims(Claims);

impl std::ops::Deref for VerifiedClaims {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.0
    }
}

/// A caller whose token of this very request was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What the token says.
    pub claims: VerifiedClaims,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
}

impl Verified {
    /// A caller by the token with this SHA-256.
    pub fn new(claims: VerifiedClaims, digest: [u8; 32]) -> Self {
        Self { claims, digest }
    }

    /// `iss` and `sub`; an absent one is empty.
    pub fn subject(&self) -> (&str, &str) {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).unwrap_or_default();
        (text("iss"), text("sub"))
    }
}

impl std::hash::Hash for Verified {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// What a provider demands of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Exact `iss`.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Clock leeway, seconds.
    pub leeway: u64,
}

/// A token whose parts are read and whose signature nobody has checked.
pub struct Unverified<'a> {
    signed: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Claims,
}

impl<'a> Unverified<'a> {
    /// Reads a compact JWS.
    ///
    /// # Errors
    /// [`TokenError`] for what no provider could accept.
    pub fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = object(header)?;
        let nested = header
            .get("cty")
            .and_then(Value::as_str)
            .is_some_and(|cty| cty.eq_ignore_ascii_case("JWT"));
        if nested
            || ["crit", "enc", "b64", "zip"]
                .iter()
                .any(|name| header.contains_key(*name))
        {
            return Err(TokenError::Unsupported);
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(TokenError::Malformed),
        };
        Ok(Self {
            signed,
            signature,
            algorithm: algorithm
                .and_then(Algorithm::named)
                .ok_or(TokenError::Algorithm)?,
            kid,
            claims: object(claims)?,
        })
    }

    /// `iss` as the token says, to choose the provider by.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The claims, once signature, times and audience hold.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(self, keys: &KeySet, demands: &Demands, now: u64) -> Result<VerifiedClaims, TokenError> {
        if self.issuer() != Some(demands.issuer.as_str()) {
            return Err(TokenError::Issuer);
        }
        if !demands.algorithms.contains(&self.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let key = keys.choose(self.kid.as_deref(), self.algorithm)?;
        if !key.verifies(self.algorithm, self.signed, self.signature) {
            return Err(TokenError::Signature);
        }
        in_time(&self.claims, demands.leeway, now)?;
        let accepted = |audience: &Value| {
            audience
                .as_str()
                .is_some_and(|audience| demands.audiences.iter().any(|wanted| wanted == audience))
        };
        let for_us = match self.claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(accepted),
            Some(audience) => accepted(audience),
            None => false,
        };
        if for_us {
            Ok(VerifiedClaims(self.claims))
        } else {
            Err(TokenError::Audience)
        }
    }
}

/// `exp` of verified claims, Unix seconds.
pub fn expiry(claims: &Claims) -> Option<u64> {
    seconds(claims.get("exp")?)
}

fn in_time(claims: &Claims, leeway: u64, now: u64) -> Result<(), TokenError> {
    let expires = expiry(claims).ok_or(TokenError::Time)?;
    if expires.saturating_add(leeway) <= now {
        return Err(TokenError::Time);
    }
    for name in ["nbf", "iat"] {
        if let Some(value) = claims.get(name) {
            let begins = seconds(value).ok_or(TokenError::Time)?;
            if begins > now.saturating_add(leeway) {
                return Err(TokenError::Time);
            }
        }
    }
    Ok(())
}

/// A NumericDate: seconds, possibly with a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is checked to lie in the range"
)]
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (0.0..=9e15).contains(&number).then_some(number as u64)
    })
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    match strict_json::read(&bytes, SameName::Equal) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(TokenError::Malformed),
    }
}

#[cfg(test)]
pub(crate) mod tests;
