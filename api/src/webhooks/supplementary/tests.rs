use serde_json::{Value, json};

use super::*;

const VALIDATING: ConfigurationKind = ConfigurationKind::Validating;

/// An object as OLM makes it from one definition of a CSV.
fn made(webhook: &str, second: u8, selector: &Value) -> Value {
    json!({"metadata": {"name": format!("{webhook}-x{second}"), "uid": format!("uid-{second}"),
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "labels": {"olm.managed": "true", "olm.owner": "mcp-gateway.v0.1.0", "olm.owner.namespace": "mcp-system",
                "olm.owner.kind": "ClusterServiceVersion", "olm.webhook-description-generate-name": webhook}},
        "webhooks": [{"name": webhook, "failurePolicy": "Ignore", "namespaceSelector": selector,
            "clientConfig": {"caBundle": format!("ca-{second}"), "service": {"path": "/validate", "port": 443}}}]})
}

fn scoped() -> Value {
    json!({"matchLabels": {"olm.operatorgroup.uid/7": ""}})
}

fn webhooks(stored: &[Value]) -> Vec<Value> {
    let object = supplementary(VALIDATING, "mcp-system", stored).unwrap_or_default();
    object["webhooks"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_scoped_group_is_complemented_with_everything_else_unchanged() {
    let webhooks = webhooks(&[made(EXCLUSIVITY, 1, &scoped())]);
    let mut expected = made(EXCLUSIVITY, 1, &Value::Null)["webhooks"][0].clone();
    expected["namespaceSelector"] =
        json!({"matchExpressions": [{"key": "olm.operatorgroup.uid/7", "operator": "DoesNotExist"}]});
    assert_eq!(webhooks, [expected]);
}

#[test]
fn each_requirement_of_a_selector_is_negated_by_a_webhook_of_its_own() {
    let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["2"]}]});
    let found = webhooks(&[made(RULES, 1, &selector)]);
    let pairs: Vec<_> = found
        .iter()
        .map(|webhook| {
            (
                webhook["name"].clone(),
                webhook["namespaceSelector"]["matchExpressions"].clone(),
            )
        })
        .collect();
    let expected = [
        (
            json!(RULES),
            json!([{"key": "a", "operator": "NotIn", "values": ["1"]}]),
        ),
        (
            json!(format!("s1.{RULES}")),
            json!([{"key": "b", "operator": "In", "values": ["2"]}]),
        ),
    ];
    assert_eq!(pairs, expected);
    let unknown = json!({"matchExpressions": [{"key": "b", "operator": "Gt", "values": ["2"]}]});
    assert!(
        webhooks(&[made(RULES, 1, &unknown)])[0]
            .get("namespaceSelector")
            .is_none()
    );
}

#[test]
fn a_group_for_all_namespaces_needs_only_the_guard_of_changes() {
    let everything = json!({});
    let stored = [
        made(EXCLUSIVITY, 1, &everything),
        made(EXCLUSIVITY_OF_CHANGES, 2, &everything),
        made(RULES, 3, &everything),
    ];
    let webhooks = webhooks(&stored);
    assert_eq!(webhooks.len(), 1);
    assert_eq!(webhooks[0]["failurePolicy"], "Fail");
    assert_eq!(
        webhooks[0]["matchConditions"][0]["expression"],
        super::super::CHANGED
    );
    let mutating = [made(DEFAULTS, 1, &everything)];
    assert_eq!(
        supplementary(ConfigurationKind::Mutating, "mcp-system", &mutating),
        None
    );
}

#[test]
fn the_guard_of_changes_covers_every_namespace() {
    let webhooks = webhooks(&[made(EXCLUSIVITY_OF_CHANGES, 1, &scoped())]);
    assert!(webhooks[0].get("namespaceSelector").is_none(), "{webhooks:?}");
}

#[test]
fn o4_owners_are_all_that_exist_and_the_newer_one_gives_the_content() {
    let mut going = made(EXCLUSIVITY, 9, &scoped());
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:10Z");
    let stored = [
        made(EXCLUSIVITY, 2, &scoped()),
        made(EXCLUSIVITY, 1, &scoped()),
        going,
    ];
    let object = supplementary(VALIDATING, "mcp-system", &stored).unwrap_or_default();
    let owners: Vec<_> = object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|owner| {
            assert_eq!(
                (&owner["controller"], &owner["blockOwnerDeletion"]),
                (&json!(false), &json!(false))
            );
            owner["uid"].clone()
        })
        .collect();
    assert_eq!(owners, ["uid-2", "uid-1"]);
    assert_eq!(object["webhooks"][0]["clientConfig"]["caBundle"], "ca-2");
    let labels = object["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    assert!(labels.keys().all(|key| !key.starts_with("olm.")), "{labels:?}");
}

#[test]
fn objects_of_others_are_not_supplemented() {
    let mut elsewhere = made(EXCLUSIVITY, 1, &scoped());
    elsewhere["metadata"]["labels"][OWNER_NAMESPACE_LABEL] = json!("other");
    let mut foreign = made("validate.example.com", 1, &scoped());
    foreign["webhooks"][0]["name"] = json!("validate.example.com");
    let mut ours = made(EXCLUSIVITY, 1, &scoped());
    ours["metadata"]["labels"] = json!({"app.kubernetes.io/name": "mcp-gateway-webhook"});
    assert_eq!(
        supplementary(VALIDATING, "mcp-system", &[elsewhere, foreign, ours]),
        None
    );
}
