//! Is this text a usable JWK set? Only public, asymmetric keys are (operator.md 10.1); a private or symmetric key in
//! a policy is a leaked secret.

use serde_json::Value;

/// Holds `text` against what a verifier can use: a JWK set or one single JWK (RFC 7517) of public keys.
///
/// # Errors
/// What is wrong, without any of the text.
pub fn check(text: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(text).map_err(|_| "is not JSON; give a JWK set".to_owned())?;
    if document.get("keys").is_none() {
        return check_key(&document).map_err(|what| format!("is no JWK set: {what}"));
    }
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .ok_or("has a member keys that is no list")?;
    if keys.is_empty() {
        return Err("holds no key".to_owned());
    }
    keys.iter()
        .enumerate()
        .try_for_each(|(index, key)| check_key(key).map_err(|what| format!("key {index} {what}")))
}

fn check_key(key: &Value) -> Result<(), String> {
    let has = |member: &str| {
        key.get(member)
            .and_then(Value::as_str)
            .is_some_and(|value| !value.is_empty())
    };
    let kty = key.get("kty").and_then(Value::as_str).ok_or("has no kty")?;
    if kty == "oct" || key.get("k").is_some() {
        return Err("is symmetric; use a public key (RSA, EC or OKP)".to_owned());
    }
    if ["d", "p", "q", "dp", "dq", "qi", "oth"]
        .iter()
        .any(|member| key.get(member).is_some())
    {
        return Err("holds a private key; publish only the public half, and replace the pair".to_owned());
    }
    let needed: &[&str] = match kty {
        "RSA" => &["n", "e"],
        "EC" => &["crv", "x", "y"],
        "OKP" => &["crv", "x"],
        _ => return Err("has an unknown kty; use RSA, EC or OKP".to_owned()),
    };
    match needed.iter().find(|member| !has(member)) {
        Some(member) => Err(format!("has no {member}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_pass_alone_and_in_a_set() {
        assert_eq!(check(r#"{"kty":"EC","crv":"P-256","x":"a","y":"b"}"#), Ok(()));
        assert_eq!(
            check(r#"{"keys":[{"kty":"RSA","n":"a","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"a"}]}"#),
            Ok(())
        );
    }

    #[test]
    fn secrets_and_nonsense_do_not_and_are_never_repeated() {
        for (text, what) in [
            ("{", "not JSON"),
            ("[]", "no kty"),
            (r#"{"keys":[]}"#, "no key"),
            (r#"{"keys":7}"#, "no list"),
            (r#"{"kty":"oct","k":"hunter2"}"#, "symmetric"),
            (
                r#"{"keys":[{"kty":"RSA","n":"a","e":"AQAB","d":"hunter2"}]}"#,
                "private",
            ),
            (r#"{"kty":"EC","crv":"P-256","x":"a"}"#, "no y"),
            (r#"{"kty":"DH"}"#, "unknown kty"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(what) && !error.contains("hunter2"), "{error}");
        }
    }
}
