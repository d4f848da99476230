//! Attacks on the header: algorithms, key names, keys that the token brings along.

use super::*;

#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn attacks(issuer: &Issuer, attacker: &Issuer) -> Vec<Attack> {
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
