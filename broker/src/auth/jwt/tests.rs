//! Good tokens of every algorithm, and which keys verify them.

pub(crate) mod attacks;

use super::*;
use crate::auth::jwks::KeySetError;
use jsonwebtoken::EncodingKey;
use p521::ecdsa::signature::RandomizedSigner as _;
use rcgen::KeyPair;
use serde_json::json;

pub(crate) const NOW: u64 = 1_800_000_000;

/// An issuer with one key.
pub(crate) struct Issuer {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
    pub(crate) jwk: Value,
}

fn coordinate(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    pub(crate) fn ec(kid: &str, curve: &str) -> Self {
        let (pair, algorithm, name) = match curve {
            "P-256" => (
                &rcgen::PKCS_ECDSA_P256_SHA256,
                jsonwebtoken::Algorithm::ES256,
                "ES256",
            ),
            _ => (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                jsonwebtoken::Algorithm::ES384,
                "ES384",
            ),
        };
        let pair = KeyPair::generate_for(pair).unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at((pair.public_key_raw().len() - 1) / 2);
        Self {
            algorithm,
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            jwk: json!({"kty": "EC", "crv": curve, "kid": kid, "alg": name, "use": "sig",
                "x": coordinate(x), "y": coordinate(y)}),
        }
    }

    fn ed25519(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self {
            algorithm: jsonwebtoken::Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": coordinate(pair.public_key_raw())}),
        }
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(&self.jwk.to_string()).unwrap()
    }

    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            coordinate(header.as_bytes()),
            coordinate(claims.as_bytes())
        );
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    pub(crate) fn header(&self) -> String {
        json!({"alg": format!("{:?}", self.algorithm), "kid": self.jwk["kid"], "typ": "JWT"}).to_string()
    }
}

fn demands() -> Demands {
    Demands {
        issuer: "https://issuer.test".into(),
        audiences: vec!["https://mcp.test/mcp".into()],
        algorithms: vec![
            Algorithm::ES256,
            Algorithm::ES384,
            Algorithm::EdDSA,
            Algorithm::ES512,
        ],
        leeway: 30,
    }
}

pub(crate) fn good_claims() -> Value {
    json!({"iss": "https://issuer.test", "aud": "https://mcp.test/mcp", "sub": "me", "exp": NOW + 60, "nbf": NOW, "iat": NOW})
}

fn with(name: &str, value: Value) -> String {
    let mut claims = good_claims();
    claims[name] = value;
    claims.to_string()
}

fn without(name: &str) -> String {
    let mut claims = good_claims();
    claims.as_object_mut().unwrap().remove(name);
    claims.to_string()
}

fn check(token: &str, keys: &KeySet) -> Result<VerifiedClaims, TokenError> {
    Unverified::read(token)?.verify(keys, &demands(), NOW)
}

#[test]
fn a_good_token_of_each_key_type_is_verified() {
    for issuer in [
        Issuer::ec("a", "P-256"),
        Issuer::ec("b", "P-384"),
        Issuer::ed25519("c"),
    ] {
        let token = issuer.sign(&issuer.header(), &good_claims().to_string());
        assert_eq!(
            check(&token, &issuer.keys()).unwrap()["sub"],
            "me",
            "{:?}",
            issuer.algorithm
        );
    }
    let key = p521::ecdsa::SigningKey::random(&mut p521::elliptic_curve::rand_core::OsRng);
    let point = p521::ecdsa::VerifyingKey::from(&key).to_encoded_point(false);
    let jwk = json!({"kty": "EC", "crv": "P-521", "x": coordinate(point.x().unwrap()), "y": coordinate(point.y().unwrap())});
    let signed = format!(
        "{}.{}",
        coordinate(br#"{"alg":"ES512"}"#),
        coordinate(good_claims().to_string().as_bytes())
    );
    let signature: p521::ecdsa::Signature =
        key.sign_with_rng(&mut p521::elliptic_curve::rand_core::OsRng, signed.as_bytes());
    let token = format!("{signed}.{}", coordinate(&signature.to_bytes()));
    let keys = KeySet::parse(&jwk.to_string()).unwrap();
    assert!(check(&token, &keys).is_ok());
    assert_eq!(
        check(&token.replacen('A', "B", 1), &keys).err().map(|_| ()),
        Some(())
    );
}

#[test]
fn the_users_key_and_token_are_accepted_as_they_stand() {
    let jwk = r#"{"use":"sig","kty":"EC","kid":"XhO06x8JjWH1wwkWkyeEUxsooGEWoEdidEpwyd_hmuI","crv":"P-256","alg":"ES256","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;
    let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w";
    let demands = Demands {
        issuer: "me".into(),
        audiences: vec!["me.com".into()],
        ..demands()
    };
    let claims = Unverified::read(token)
        .unwrap()
        .verify(&KeySet::parse(jwk).unwrap(), &demands, NOW)
        .unwrap();
    assert_eq!(Verified::new(claims, [0; 32]).subject(), ("me", "me"));
}

#[test]
fn keys_are_chosen_by_kid_or_as_the_only_one_that_fits() {
    let (one, two, other) = (
        Issuer::ec("one", "P-256"),
        Issuer::ec("two", "P-256"),
        Issuer::ec("x", "P-384"),
    );
    let both = KeySet::parse(&json!({"keys": [one.jwk, two.jwk, other.jwk]}).to_string()).unwrap();
    let claims = good_claims().to_string();
    assert!(check(&two.sign(&two.header(), &claims), &both).is_ok());
    let nameless =
        |issuer: &Issuer, algorithm: &str| issuer.sign(&json!({"alg": algorithm}).to_string(), &claims);
    assert_eq!(
        check(&nameless(&two, "ES256"), &both),
        Err(TokenError::UnknownKey)
    );
    assert!(
        check(&nameless(&other, "ES384"), &both).is_ok(),
        "the only ES384 key"
    );
}

#[test]
fn sets_with_private_or_symmetric_keys_and_sets_without_keys_are_refused() {
    let public = Issuer::ec("one", "P-256").jwk;
    let with = |member: Value| KeySet::parse(&json!({"keys": [public, member]}).to_string()).err();
    let mut private = public.clone();
    private["d"] = json!("AAAA");
    assert_eq!(with(private), Some(KeySetError::Secret));
    assert_eq!(
        with(json!({"kty": "oct", "k": "AAAA"})),
        Some(KeySetError::Secret)
    );
    assert_eq!(
        with(json!({"kty": "RSA", "n": "AQ", "e": "AQAB", "p": "AQ"})),
        Some(KeySetError::Secret)
    );
    assert_eq!(with(json!(7)), Some(KeySetError::Shape));
    assert_eq!(
        with(json!({"kty": "unheard-of"})),
        None,
        "unknown types are left out"
    );
    for (text, why) in [
        ("", KeySetError::Shape),
        ("[]", KeySetError::Shape),
        ("{}", KeySetError::Shape),
        (r#"{"keys":{}}"#, KeySetError::Shape),
        (r#"{"keys":[]}"#, KeySetError::Empty),
    ] {
        assert_eq!(KeySet::parse(text).err(), Some(why), "{text}");
    }
    let mut encryption = public.clone();
    encryption["use"] = json!("enc");
    assert_eq!(
        KeySet::parse(&encryption.to_string()).err(),
        Some(KeySetError::Empty)
    );
}

#[test]
fn leeway_counts_in_both_directions() {
    let issuer = Issuer::ec("one", "P-256");
    let keys = issuer.keys();
    for (claims, good) in [
        (with("exp", json!(NOW - 29)), true),
        (with("exp", json!(NOW - 30)), false),
        (with("nbf", json!(NOW + 30)), true),
        (with("nbf", json!(NOW + 31)), false),
        (with("exp", json!(NOW as f64 + 0.5)), true),
    ] {
        assert_eq!(
            check(&issuer.sign(&issuer.header(), &claims), &keys).is_ok(),
            good,
            "{claims}"
        );
    }
}
