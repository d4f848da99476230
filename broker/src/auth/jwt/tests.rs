//! Good tokens of every algorithm, and the table of attacks: all refused, each for the right reason.

use super::*;
use crate::auth::jwks::KeySetError;
use jsonwebtoken::EncodingKey;
use p521::ecdsa::signature::RandomizedSigner as _;
use rcgen::KeyPair;
use serde_json::json;

const NOW: u64 = 1_800_000_000;

/// An issuer with one key.
struct Issuer {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn coordinate(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    fn ec(kid: &str, curve: &str) -> Self {
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

    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            coordinate(header.as_bytes()),
            coordinate(claims.as_bytes())
        );
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    fn header(&self) -> String {
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

fn good_claims() -> Value {
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

/// Name, token, the error it must have (`None`: any).
type Attack = (String, String, Option<TokenError>);

#[expect(clippy::too_many_lines, reason = "one table")]
fn attacks_on_the_header(issuer: &Issuer, attacker: &Issuer) -> Vec<Attack> {
    let claims = good_claims().to_string();
    let kid = issuer.jwk["kid"].clone();
    let mut attacks = Vec::new();
    let mut add = |name: String, token: String, why| attacks.push((name, token, why));
    for alg in [
        "none", "None", "NONE", "nOnE", "", " ES256", "es256", "ES256 ", "HS256", "HS384", "HS512", "ES256K",
        "RSA1_5", "dir", "A128KW",
    ] {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        add(
            format!("alg {alg:?} signed"),
            issuer.sign(&header, &claims),
            Some(TokenError::Algorithm),
        );
        let unsigned = format!(
            "{}.{}.",
            coordinate(header.as_bytes()),
            coordinate(claims.as_bytes())
        );
        add(
            format!("alg {alg:?} unsigned"),
            unsigned,
            Some(TokenError::Algorithm),
        );
    }
    for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        add(
            format!("alg {alg} not accepted"),
            issuer.sign(&header, &claims),
            Some(TokenError::Algorithm),
        );
    }
    for alg in ["ES384", "ES512", "EdDSA"] {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        add(
            format!("alg {alg} does not fit the key"),
            issuer.sign(&header, &claims),
            Some(TokenError::Algorithm),
        );
    }
    // An HMAC whose secret is the public key, in each spelling that a confused verifier may use.
    for (index, secret) in [issuer.jwk.to_string(), issuer.jwk["x"].to_string(), String::new()]
        .iter()
        .enumerate()
    {
        for (name, algorithm) in [
            ("HS256", jsonwebtoken::Algorithm::HS256),
            ("HS384", jsonwebtoken::Algorithm::HS384),
            ("HS512", jsonwebtoken::Algorithm::HS512),
        ] {
            let signed = format!(
                "{}.{}",
                coordinate(json!({"alg": name, "kid": kid}).to_string().as_bytes()),
                coordinate(claims.as_bytes())
            );
            let tag = jsonwebtoken::crypto::sign(
                signed.as_bytes(),
                &EncodingKey::from_secret(secret.as_bytes()),
                algorithm,
            )
            .unwrap();
            add(
                format!("{name} by public key {index}"),
                format!("{signed}.{tag}"),
                Some(TokenError::Algorithm),
            );
        }
    }
    for bad in [
        json!("unknown"),
        json!(""),
        json!("../../dev/null"),
        json!("' OR 1=1 --"),
        json!("ONE"),
        json!("one "),
        json!("o\u{440}e"),
    ] {
        let header = json!({"alg": "ES256", "kid": bad}).to_string();
        add(
            format!("kid {bad}"),
            issuer.sign(&header, &claims),
            Some(TokenError::UnknownKey),
        );
    }
    for bad in [
        json!(1),
        json!(null),
        json!(["one"]),
        json!({"one": 1}),
        json!(true),
    ] {
        let header = json!({"alg": "ES256", "kid": bad}).to_string();
        add(
            format!("kid {bad}"),
            issuer.sign(&header, &claims),
            Some(TokenError::Malformed),
        );
    }
    for bad in [json!(1), json!(null), json!(["ES256"]), json!({"ES256": 1})] {
        let header = json!({"alg": bad, "kid": kid}).to_string();
        add(
            format!("alg {bad}"),
            issuer.sign(&header, &claims),
            Some(TokenError::Algorithm),
        );
    }
    // Keys that the token brings along.
    for (name, value) in [
        ("jwk", attacker.jwk.clone()),
        ("jku", json!("https://attacker.test/jwks.json")),
        ("x5u", json!("https://attacker.test/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ] {
        let header = json!({"alg": "ES256", "kid": kid, name: value}).to_string();
        add(
            format!("embedded {name}"),
            attacker.sign(&header, &claims),
            Some(TokenError::Signature),
        );
        let header = json!({"alg": "ES256", "kid": attacker.jwk["kid"], name: value}).to_string();
        add(
            format!("embedded {name} with its kid"),
            attacker.sign(&header, &claims),
            Some(TokenError::UnknownKey),
        );
    }
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("cty", json!("jwt")),
    ] {
        let header = json!({"alg": "ES256", "kid": kid, name: value}).to_string();
        add(
            format!("{name}: {value}"),
            issuer.sign(&header, &claims),
            Some(TokenError::Unsupported),
        );
    }
    for doubled in [
        r#"{"alg":"none","alg":"ES256","kid":"one"}"#,
        r#"{"alg":"ES256","alg":"none","kid":"one"}"#,
        r#"{"alg":"ES256","kid":"one","kid":"two"}"#,
        r#"{"alg":"ES256","kid":"one","x":{"a":1,"a":2}}"#,
        r#"{"alg":"ES256","kid":"one","\u0061lg":"none"}"#,
    ] {
        add(
            format!("doubled in header {doubled}"),
            issuer.sign(doubled, &claims),
            Some(TokenError::Malformed),
        );
    }
    for shape in [
        "",
        "null",
        "[]",
        "\"ES256\"",
        "7",
        "{",
        "{}}",
        "{\"alg\":\"ES256\"",
        "\u{feff}{\"alg\":\"ES256\"}",
        "{'alg':'ES256'}",
    ] {
        add(
            format!("header {shape:?}"),
            issuer.sign(shape, &claims),
            Some(TokenError::Malformed),
        );
    }
    attacks
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn attacks_on_the_claims(issuer: &Issuer) -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut add =
        |name: String, claims: &str, why| attacks.push((name, issuer.sign(&issuer.header(), claims), why));
    let late = json!(NOW - 31);
    for exp in [
        late,
        json!(0),
        json!(-1),
        json!("9999999999"),
        json!(null),
        json!([9_999_999_999u64]),
        json!(true),
        json!({"at": 1}),
        json!(-9e18),
        json!(1.0e300),
    ] {
        add(
            format!("exp {exp}"),
            &with("exp", exp.clone()),
            Some(TokenError::Time),
        );
    }
    add("no exp".into(), &without("exp"), Some(TokenError::Time));
    for name in ["nbf", "iat"] {
        for value in [
            json!(NOW + 31),
            json!(u64::MAX),
            json!("0"),
            json!(null),
            json!([0]),
            json!(true),
            json!(-1),
            json!({}),
        ] {
            add(
                format!("{name} {value}"),
                &with(name, value.clone()),
                Some(TokenError::Time),
            );
        }
    }
    let near = "https://mcp.test/mcp";
    for aud in [
        json!("https://other.test/mcp"),
        json!(""),
        json!(null),
        json!(7),
        json!(true),
        json!([]),
        json!([""]),
        json!(["a", "b"]),
        json!([[near]]),
        json!({"aud": near}),
        json!(format!("{near}/")),
        json!(format!("{near} ")),
        json!(near.to_uppercase()),
        json!(format!("{near}?x=1")),
        json!(format!("{near}#")),
        json!("http://mcp.test/mcp"),
        json!("https://mcp.test:443/mcp"),
        json!("https://mcp.test.attacker.test/mcp"),
        json!("https://mcp.test/mcp/../mcp"),
        json!("https://m\u{441}p.test/mcp"),
        json!(format!("{near}\u{0}")),
        json!(format!("x {near}")),
        json!("*"),
    ] {
        add(
            format!("aud {aud}"),
            &with("aud", aud.clone()),
            Some(TokenError::Audience),
        );
    }
    add("no aud".into(), &without("aud"), Some(TokenError::Audience));
    let issuer_name = "https://issuer.test";
    for iss in [
        json!("https://attacker.test"),
        json!(""),
        json!(null),
        json!(7),
        json!([issuer_name]),
        json!({"iss": issuer_name}),
        json!(format!("{issuer_name}/")),
        json!(issuer_name.to_uppercase()),
        json!(format!(" {issuer_name}")),
        json!("http://issuer.test"),
        json!("https://issuer.test:443"),
        json!("https://\u{456}ssuer.test"),
        json!(format!("{issuer_name}\u{200b}")),
        json!(true),
    ] {
        add(
            format!("iss {iss}"),
            &with("iss", iss.clone()),
            Some(TokenError::Issuer),
        );
    }
    add("no iss".into(), &without("iss"), Some(TokenError::Issuer));
    let body = good_claims().to_string();
    let inner = body.trim_start_matches('{');
    for doubled in [
        "\"sub\":\"admin\"",
        "\"iss\":\"https://issuer.test\"",
        "\"aud\":\"x\"",
        "\"exp\":1",
        "\"nbf\":0",
        "\"iat\":0",
        "\"a\":{\"b\":1,\"b\":2}",
        "\"a\":[{\"b\":1,\"b\":2}]",
        "\"\\u0073ub\":\"admin\"",
    ] {
        add(
            format!("doubled claim {doubled}"),
            &format!("{{{doubled},{inner}"),
            Some(TokenError::Malformed),
        );
    }
    for shape in ["", "null", "[]", "7", "\"x\"", "{", "{}x", "\u{feff}{}"] {
        add(format!("claims {shape:?}"), shape, Some(TokenError::Malformed));
    }
    add(
        "nested too deep".into(),
        &format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
        Some(TokenError::Malformed),
    );
    add(
        "huge".into(),
        &with("pad", json!("x".repeat(MAX_TOKEN))),
        Some(TokenError::TooLarge),
    );
    attacks
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn attacks_on_the_form(issuer: &Issuer, attacker: &Issuer) -> Vec<Attack> {
    let good = issuer.sign(&issuer.header(), &good_claims().to_string());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut attacks = Vec::new();
    let mut add = |name: String, token: String, why| attacks.push((name, token, why));
    for (name, token) in [
        ("empty", String::new()),
        ("dots", "..".into()),
        ("one part", header.into()),
        ("two parts", signed.into()),
        ("four parts", format!("{good}.x")),
        ("five parts", format!("{good}.x.y")),
        ("leading dot", format!(".{good}")),
        ("padding in header", format!("{header}=.{claims}.{signature}")),
        ("padding in claims", format!("{header}.{claims}==.{signature}")),
        ("space inside", format!("{header}. {claims}.{signature}")),
        ("line break", format!("{header}.\n{claims}.{signature}")),
        ("comma joined", format!("{good},{good}")),
        ("unicode", format!("{header}.{claims}é.{signature}")),
        (
            "json serialization",
            json!({"payload": claims, "protected": header, "signature": signature}).to_string(),
        ),
    ] {
        add(name.into(), token, Some(TokenError::Malformed));
    }
    for (name, signature) in [
        ("no signature", String::new()),
        ("padded signature", format!("{signature}==")),
        ("zeros", coordinate(&[0; 64])),
        ("ones", coordinate(&[255; 64])),
        ("short", coordinate(&raw[..63])),
        ("long", coordinate(&[raw.as_slice(), &[0]].concat())),
        ("halves swapped", coordinate(&[&raw[32..], &raw[..32]].concat())),
        ("not base64", "!!!".into()),
        ("half", coordinate(&raw[..32])),
        ("space", " ".into()),
    ] {
        add(
            name.into(),
            format!("{signed}.{signature}"),
            Some(TokenError::Signature),
        );
    }
    for position in 0..raw.len() {
        let mut flipped = raw.clone();
        flipped[position] ^= 1;
        add(
            format!("bit of signature byte {position}"),
            format!("{signed}.{}", coordinate(&flipped)),
            Some(TokenError::Signature),
        );
    }
    let elevated = coordinate(with("sub", json!("admin")).as_bytes());
    add(
        "claims exchanged".into(),
        format!("{header}.{elevated}.{signature}"),
        Some(TokenError::Signature),
    );
    add(
        "other issuer's signature".into(),
        attacker.sign(&issuer.header(), &good_claims().to_string()),
        Some(TokenError::Signature),
    );
    add(
        "other issuer's token".into(),
        attacker.sign(&attacker.header(), &good_claims().to_string()),
        Some(TokenError::UnknownKey),
    );
    attacks
}

#[test]
fn every_attack_of_the_table_is_refused_for_its_reason() {
    let (issuer, attacker) = (Issuer::ec("one", "P-256"), Issuer::ec("two", "P-256"));
    let keys = issuer.keys();
    let good = issuer.sign(&issuer.header(), &good_claims().to_string());
    assert!(check(&good, &keys).is_ok(), "the token that the attacks vary");
    let attacks = [
        attacks_on_the_header(&issuer, &attacker),
        attacks_on_the_claims(&issuer),
        attacks_on_the_form(&issuer, &attacker),
    ]
    .concat();
    assert!(attacks.len() >= 200, "{} attacks", attacks.len());
    let wrong: Vec<String> = attacks
        .iter()
        .filter_map(|(name, token, why)| match check(token, &keys) {
            Err(error) if why.is_none_or(|why| why == error) => None,
            other => Some(format!("{name}: {other:?}, not {why:?}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
