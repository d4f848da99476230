//! The only defaults that the schema cannot express: an absent `spec.targetRef.namespace` becomes the object's own
//! namespace (operator.md 3.2). Nothing else is ever changed, so that no GitOps tool sees a difference.

use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::Value;

use super::Kind;

/// The patch that fills in what is absent in `object`, written into `namespace`; empty when nothing is.
///
/// RFC 6902 has no test for absence. Instead the patch tests that `targetRef` still is what was seen here, which
/// includes that it has no namespace: applied twice, or to an object that somebody else has completed, it fails
/// instead of overwriting.
#[must_use]
pub fn patch(kind: Kind, namespace: &str, object: &Value) -> Patch {
    if !matches!(kind, Kind::Extension | Kind::Registration) || namespace.is_empty() {
        return Patch::default();
    }
    let Some(target) = object
        .pointer("/spec/targetRef")
        .filter(|target| target.is_object())
    else {
        return Patch::default();
    };
    if target.get("namespace").is_some_and(|value| !value.is_null()) {
        return Patch::default();
    }
    Patch(vec![
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["spec", "targetRef"]),
            value: target.clone(),
        }),
        PatchOperation::Add(AddOperation {
            path: PointerBuf::from_tokens(["spec", "targetRef", "namespace"]),
            value: Value::String(namespace.to_owned()),
        }),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(kind: Kind, object: &Value) -> Value {
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &patch(kind, "team-a", object)).expect("applies");
        patched
    }

    #[test]
    fn an_absent_namespace_is_filled_in_once() {
        let object = json!({"spec": {"targetRef": {"name": "gw"}}});
        let once = apply(Kind::Extension, &object);
        assert_eq!(once["spec"]["targetRef"]["namespace"], "team-a");
        assert_eq!(apply(Kind::Extension, &once), once);
        assert!(patch(Kind::Extension, "team-a", &once).0.is_empty());
    }

    #[test]
    fn what_is_there_and_every_other_kind_stays() {
        let named = json!({"spec": {"targetRef": {"name": "gw", "namespace": "infra"}}});
        assert!(patch(Kind::Registration, "team-a", &named).0.is_empty());
        let absent = json!({"spec": {"targetRef": {"name": "gw"}}});
        assert!(patch(Kind::Policy, "team-a", &absent).0.is_empty());
        for odd in [
            json!({}),
            json!({"spec": null}),
            json!({"spec": {"targetRef": []}}),
            json!(7),
        ] {
            assert!(patch(Kind::Extension, "team-a", &odd).0.is_empty());
        }
    }

    #[test]
    fn the_patch_does_not_overwrite_what_somebody_filled_in_meanwhile() {
        let seen = json!({"spec": {"targetRef": {"name": "gw"}}});
        let mut meanwhile = json!({"spec": {"targetRef": {"name": "gw", "namespace": "infra"}}});
        assert!(json_patch::patch(&mut meanwhile, &patch(Kind::Extension, "team-a", &seen)).is_err());
    }
}
