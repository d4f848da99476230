//! A certificate authority and a serving pair as OLM makes them: an ECDSA P-256 key in SEC1 PEM (olm.md 1.7).

use std::time::SystemTime;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{CERTIFICATE, NAMESPACE, SERVICE};

/// An authority with one pair.
pub(crate) struct Pair {
    /// PEM of the authority in base64, as in a `caBundle`.
    pub(crate) authority: String,
    /// The Secret with the pair.
    pub(crate) secret: Value,
}

impl Pair {
    /// A new authority and a new pair.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (authority, secret) = certificate()?;
        Ok(Self { authority, secret })
    }
}

/// An authority, and the Secret with a pair for the Service, the key as SEC1 like OLM's.
fn certificate() -> anyhow::Result<(String, Value)> {
    let names = vec![
        format!("{SERVICE}.{NAMESPACE}"),
        format!("{SERVICE}.{NAMESPACE}.svc"),
    ];
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let key = rcgen::KeyPair::generate()?;
    let mut leaf = rcgen::CertificateParams::new(names)?;
    // As OLM does: a pair is valid from when it was made, and the newer of two is served.
    leaf.not_before = SystemTime::now().into();
    let leaf = leaf.signed_by(&key, &issuer)?;
    let encoded = |text: &str| STANDARD.encode(text);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": CERTIFICATE, "namespace": NAMESPACE},
        "data": {"tls.crt": encoded(&leaf.pem()), "tls.key": encoded(&sec1(&key.serialize_der())?), "olmCAKey": encoded(&certificate.pem())},
    });
    Ok((encoded(&certificate.pem()), secret))
}

/// The ECPrivateKey (RFC 5915) inside of a PKCS#8 document, as PEM.
fn sec1(pkcs8: &[u8]) -> anyhow::Result<String> {
    // OneAsymmetricKey of P-256: sequence, version, algorithm (two object identifiers), then the octet string with the key.
    let at = pkcs8
        .windows(4)
        .position(|bytes| bytes[0] == 0x04 && bytes[2] == 0x30)
        .context("no ECPrivateKey inside")?;
    let inner = &pkcs8[at + 2..at + 2 + usize::from(pkcs8[at + 1])];
    let text: Vec<char> = STANDARD.encode(inner).chars().collect();
    let lines: Vec<String> = text.chunks(64).map(|line| line.iter().collect()).collect();
    Ok(format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        lines.join("\n")
    ))
}
