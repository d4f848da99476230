use mcp_gateway_api::config::PolicyAction;
use serde_json::json;

use super::*;
use crate::{fixtures::Objects, kinds::Kind, secrets::SecretContent};

const KEY: &str = r#"{"kty":"EC","crv":"P-256","kid":"a","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;

/// `infra/policy` on Gateway `infra/gw`, with a provider whose keys are `jwks`.
fn policy(jwks: &serde_json::Value) -> serde_json::Value {
    json!({"spec": {
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}],
        "authentication": {"jwt": {"providers": [{"name": "p", "issuer": "https://issuer", "jwks": jwks, "requiredScopes": ["mcp"]}]}},
        "rules": [
            {"matches": [{"jwt": {"claim": "sub", "value": "me"}}], "resource": {"kind": "tool", "name": "apps/one:*"}},
            {"name": "guests", "effect": "Deny", "matches": [{"jwt": {"claim": "groups", "values": ["a", "b"]}}], "resource": {"kind": "prompt", "name": "*"}},
        ],
    }})
}

fn with(policy: &serde_json::Value) -> Snapshot {
    let objects = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({}))
        .put(Kind::AuthPolicy, "infra/policy", policy);
    Snapshot::compute(objects.0.versioned_world(), "cluster.local")
}

fn made(snapshot: &Snapshot, readings: &Readings) -> (AuthPolicyEntry, Option<Refusal>) {
    let key = ObjectKey::new("team", "ext");
    let accepted = snapshot.accepted(&key).expect("accepted");
    let extension = snapshot.world.extension(&key).expect("stored");
    let inputs = PolicyInputs {
        secrets: readings,
        config_maps: readings,
    };
    let policies = by_age(&snapshot.world);
    entry(snapshot, (extension, accepted), policies[0], inputs).expect("it concerns the extension")
}

fn read(data: &[(&str, &[u8])], labelled: bool) -> Readings {
    let content = SecretContent::for_test(data, labelled);
    Readings::from([(ObjectKey::new("infra", "keys"), Reading::Present(content))])
}

#[test]
fn an_accepted_policy_goes_to_the_brokers_whole() {
    let snapshot = with(&policy(&json!({"inline": KEY})));
    let (entry, refusal) = made(&snapshot, &Readings::new());
    assert_eq!(refusal, None);
    let provider = &entry.providers[0];
    assert!(entry.valid && provider.jwks == KEY);
    assert_eq!(
        provider.audiences,
        ["https://mcp.example.com/mcp", "http://mcp.example.com:8080/mcp"]
    );
    assert_eq!(provider.algorithms, ["RS256", "ES256"]);
    assert_eq!(
        (provider.leeway_seconds, provider.required_scopes.as_slice()),
        (Some(30), &["mcp".to_owned()][..])
    );
    let rules: Vec<_> = entry
        .rules
        .iter()
        .map(|rule| {
            (
                rule.name.as_str(),
                rule.effect,
                rule.kind.as_str(),
                rule.matches[0].values.len(),
            )
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("rule-0", PolicyAction::Allow, "tool", 1),
            ("guests", PolicyAction::Deny, "prompt", 2)
        ]
    );
}

#[test]
fn keys_come_from_secrets_and_config_maps_and_each_defect_has_its_reason() {
    let secret = with(&policy(&json!({"secretRef": {"name": "keys"}})));
    let map = with(&policy(&json!({"configMapRef": {"name": "keys"}})));
    let good = read(&[("jwks.json", KEY.as_bytes())], true);
    assert_eq!(made(&secret, &good).0.providers[0].jwks, KEY);
    assert_eq!(made(&map, &good).0.providers[0].jwks, KEY);
    let gone = Readings::from([(ObjectKey::new("infra", "keys"), Reading::Absent)]);
    let unknown = Readings::from([(ObjectKey::new("infra", "keys"), Reading::Unknown)]);
    for (snapshot, readings, reason, inconclusive) in [
        (&secret, &gone, PolicyReason::SecretNotFound, false),
        (&secret, &unknown, PolicyReason::SecretNotFound, true),
        (
            &secret,
            &read(&[("jwks.json", KEY.as_bytes())], false),
            PolicyReason::SecretInvalid,
            false,
        ),
        (
            &secret,
            &read(&[("other", b"x")], true),
            PolicyReason::SecretInvalid,
            false,
        ),
        (
            &secret,
            &read(&[("jwks.json", br#"{"kty":"oct","k":"AA"}"#)], true),
            PolicyReason::SecretInvalid,
            false,
        ),
        (&map, &gone, PolicyReason::ConfigMapNotFound, false),
        (&map, &unknown, PolicyReason::ConfigMapNotFound, true),
        (
            &map,
            &read(&[("other", b"x")], false),
            PolicyReason::Invalid,
            false,
        ),
        (
            &map,
            &read(&[("jwks.json", b"no json")], false),
            PolicyReason::Invalid,
            false,
        ),
    ] {
        let (entry, refusal) = made(snapshot, readings);
        let refusal = refusal.expect("a refusal");
        assert_eq!(
            (refusal.reason, refusal.inconclusive),
            (reason, inconclusive),
            "{}",
            refusal.message
        );
        assert!(!entry.valid && entry.rules.is_empty() && entry.providers.is_empty());
        assert!(
            !refusal.message.contains("\"AA\""),
            "no key material: {}",
            refusal.message
        );
    }
}

#[test]
fn a_missing_target_is_named_and_denies_what_the_others_concern() {
    let mut spec = policy(&json!({"inline": KEY}));
    let absent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "sectionName": "nowhere"});
    spec["spec"]["targetRefs"]
        .as_array_mut()
        .expect("a list")
        .push(absent);
    let (entry, refusal) = made(&with(&spec), &Readings::new());
    let refusal = refusal.expect("a refusal");
    assert_eq!(refusal.reason, PolicyReason::TargetNotFound);
    assert!(
        refusal.message.contains("Gateway infra/gw listener nowhere"),
        "{}",
        refusal.message
    );
    assert!(!entry.valid && entry.targets.len() == 2);
}

#[test]
fn of_two_policies_that_declare_an_issuer_differently_the_older_counts() {
    let objects = || {
        Objects::default()
            .gateway_and_extension()
            .put_at(
                Kind::AuthPolicy,
                "infra/young",
                9,
                &policy(&json!({"remote": {"url": "https://issuer/keys"}})),
            )
            .put_at(Kind::AuthPolicy, "infra/old", 2, &policy(&json!({"inline": KEY})))
    };
    let snapshot = Snapshot::compute(objects().0.versioned_world(), "cluster.local");
    let policies = by_age(&snapshot.world);
    let [old, young] = policies.as_slice() else {
        panic!("two policies")
    };
    let (winner, issuer) = overruled_by(&snapshot.world, young).expect("a conflict");
    assert_eq!(
        (winner.metadata.name.as_deref(), issuer.as_str()),
        (Some("old"), "https://issuer")
    );
    assert!(overruled_by(&snapshot.world, old).is_none());
}
