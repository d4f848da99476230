//! The generated key pair of `trustedHeadersKey` (operator.md 5.5): made by POST, never updated or deleted by us.
//! The key itself is made here, because its two forms belong together; randomness comes from the caller's system.

use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_api::names;
use p256::{
    SecretKey,
    pkcs8::{EncodePublicKey, LineEnding},
};
use serde_json::json;

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

/// Key of either half in its Secret.
pub(crate) const KEY: &str = "key";

/// A key that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The private half is not a SEC1 PEM P-256 key; its text is not repeated.
    #[error("is invalid: not a PEM EC PRIVATE KEY on P-256")]
    Private,
    /// The public half could not be encoded.
    #[error("encode public key")]
    Public,
}

/// Name of the Secret with the private half.
pub(crate) fn private_name(secret_name: &str) -> String {
    format!("{secret_name}-private")
}

/// A new private half, SEC1 PEM.
pub(crate) fn generate() -> Result<String, KeyError> {
    let key = SecretKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
    key.to_sec1_pem(LineEnding::LF)
        .map(|pem| pem.to_string())
        .map_err(|_| KeyError::Private)
}

/// The public half, SPKI PEM, of a private one.
pub(crate) fn public_of(private_pem: &str) -> Result<String, KeyError> {
    let key = SecretKey::from_sec1_pem(private_pem).map_err(|_| KeyError::Private)?;
    key.public_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|_| KeyError::Public)
}

/// The Secret `name` with one half of the pair.
pub(crate) fn build(blueprint: &Blueprint, name: &str, pem: &str) -> Child {
    let data = json!({"type": "Opaque", "data": {KEY: STANDARD.encode(pem)}});
    Child::owned(blueprint, Kind::Secret, name, data).label(names::SECRET_LABEL, "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_is_derived_from_the_private_one() {
        let private = generate().expect("a key");
        assert!(private.starts_with("-----BEGIN EC PRIVATE KEY-----"));
        let public = public_of(&private).expect("its public half");
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"));
        assert_eq!(public_of(&private).expect("again"), public);
        assert!(public_of("nonsense").is_err());
    }
}
