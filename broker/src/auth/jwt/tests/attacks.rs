//! The table of attacks on tokens: all refused, each for the right reason.

mod header;

use super::*;

/// Name, token, the error it must have (`None`: any).
pub(crate) type Attack = (String, String, Option<TokenError>);

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

/// The whole table, on tokens of `issuer`.
pub(crate) fn all(issuer: &Issuer) -> Vec<Attack> {
    let attacker = Issuer::ec("two", "P-256");
    let attacks = [
        header::attacks(issuer, &attacker),
        attacks_on_the_claims(issuer),
        attacks_on_the_form(issuer, &attacker),
    ];
    attacks.concat()
}

#[test]
fn every_attack_of_the_table_is_refused_for_its_reason() {
    let issuer = Issuer::ec("one", "P-256");
    let keys = issuer.keys();
    let good = issuer.sign(&issuer.header(), &good_claims().to_string());
    assert!(check(&good, &keys).is_ok(), "the token that the attacks vary");
    let attacks = all(&issuer);
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
