//! Comparison of an apply body with the live object over the fields that we own (operator.md 6.5). Pure. Invariant:
//! a body that is covered, and that holds every field that our manager owns, needs no request at all.
//! Bodies write the API server's defaults out wherever a list is atomic, so that equality is plain equality.

use serde_json::{Map, Value};

/// Lists whose items have an identity, by field name, with the members that make it. Every other list is atomic.
const KEYED_LISTS: [(&str, &[&str]); 10] = [
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ports", &["containerPort", "port", "protocol"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ownerReferences", &["uid"]),
    ("conditions", &["type"]),
    ("listeners", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("webhooks", &["name"]),
];

/// Maps that are one value: a member that somebody added is a difference.
const ATOMIC_MAPS: [&str; 3] = ["selector", "matchLabels", "workloadSelector"];

/// True when applying `desired` would change nothing on `live`: every value is there, and our manager owns no field
/// that `desired` no longer has.
pub(crate) fn is_settled(desired: &Value, live: &Value, manager: &str, subresource: Option<&str>) -> bool {
    covers(desired, live, "") && !owns_more(desired, live, manager, subresource)
}

/// True when every value of `desired` is in `live`. `apiVersion`, `kind` and `metadata.resourceVersion` are not
/// compared: the first two may be absent in a cached object, the last is a precondition.
fn covers(desired: &Value, live: &Value, field: &str) -> bool {
    match (desired, live) {
        (Value::Object(_), Value::Object(_)) if ATOMIC_MAPS.contains(&field) => desired == live,
        (Value::Object(desired), Value::Object(live)) => desired
            .iter()
            .filter(|(key, _)| !(field.is_empty() && matches!(key.as_str(), "apiVersion" | "kind")))
            .filter(|(key, _)| !(field == "metadata" && key.as_str() == "resourceVersion"))
            .all(|(key, value)| covers(value, live.get(key).unwrap_or(&Value::Null), key)),
        (Value::Array(desired), Value::Array(live)) => match identity(field) {
            Some(keys) => desired.iter().all(|item| {
                live.iter()
                    .find(|candidate| same_identity(item, candidate, keys))
                    .is_some_and(|candidate| covers(item, candidate, "[]"))
            }),
            None => desired == live,
        },
        (Value::Object(desired), Value::Null) => desired.is_empty(),
        (Value::Array(desired), Value::Null) => desired.is_empty(),
        (desired, live) => desired == live,
    }
}

fn identity(field: &str) -> Option<&'static [&'static str]> {
    KEYED_LISTS
        .iter()
        .find(|(name, _)| *name == field)
        .map(|(_, keys)| *keys)
}

fn same_identity(item: &Value, candidate: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| item.get(key) == candidate.get(key))
}

/// True when `managedFields` gives `manager` a field that `desired` does not hold: it has to leave the object.
fn owns_more(desired: &Value, live: &Value, manager: &str, subresource: Option<&str>) -> bool {
    let Some(Value::Array(entries)) = live.pointer("/metadata/managedFields") else {
        return false;
    };
    entries
        .iter()
        .filter(|entry| {
            entry.get("manager").and_then(Value::as_str) == Some(manager)
                && entry.get("operation").and_then(Value::as_str) == Some("Apply")
                && entry.get("subresource").and_then(Value::as_str) == subresource
        })
        .filter_map(|entry| entry.get("fieldsV1").and_then(Value::as_object))
        .any(|fields| lacks_owned(fields, desired))
}

/// True when some path of the `fieldsV1` tree has no counterpart in `value`.
fn lacks_owned(fields: &Map<String, Value>, value: &Value) -> bool {
    fields.iter().any(|(path, below)| {
        let Some(member) = member(path, value) else {
            return path != ".";
        };
        below.as_object().is_some_and(|below| lacks_owned(below, member))
    })
}

/// What a path element of `fieldsV1` names inside `value`: `f:` a member, `k:` a keyed item, `v:` a set member.
pub(crate) fn member<'a>(path: &str, value: &'a Value) -> Option<&'a Value> {
    let (form, rest) = path.split_once(':')?;
    match form {
        "f" => value.get(rest),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
            value
                .as_array()?
                .iter()
                .find(|item| keys.iter().all(|(key, wanted)| item.get(key) == Some(wanted)))
        }
        "v" => {
            let wanted: Value = serde_json::from_str(rest).ok()?;
            value.as_array()?.iter().find(|item| **item == wanted)
        }
        _ => None,
    }
}

/// A field of ours that somebody else has taken and changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Path of the field, such as `spec.ports`.
    pub(crate) field: String,
    /// Who holds it now.
    pub(crate) manager: String,
}

/// The first field of `desired` that another manager holds with another value.
pub(crate) fn drift(desired: &Value, live: &Value, manager: &str) -> Option<Drift> {
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    entries
        .iter()
        .filter(|entry| entry.get("subresource").is_none())
        .filter_map(|entry| {
            Some((
                entry.get("manager")?.as_str()?,
                entry.get("fieldsV1")?.as_object()?,
            ))
        })
        .filter(|(other, _)| *other != manager)
        .find_map(|(other, fields)| {
            let path = differing(fields, desired, live, "")?;
            Some(Drift {
                field: path,
                manager: other.to_owned(),
            })
        })
}

fn differing(fields: &Map<String, Value>, desired: &Value, live: &Value, path: &str) -> Option<String> {
    fields
        .iter()
        .filter(|(element, _)| *element != ".")
        .find_map(|(element, below)| {
            let wanted = member(element, desired)?;
            let now = member(element, live).unwrap_or(&Value::Null);
            let name = element.split_once(':').map_or(element.as_str(), |(_, name)| name);
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            match below.as_object().filter(|below| !below.is_empty()) {
                Some(below) => differing(below, wanted, now, &path),
                // Our flags and the user's share this one list; their order is no edit of ours.
                None if name == "command" => (sorted(wanted) != sorted(now)).then_some(path),
                None => (!covers(wanted, now, name)).then_some(path),
            }
        })
}

/// The words of a list, in an order of their own.
fn sorted(list: &Value) -> Vec<&str> {
    let mut words: Vec<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"ours": "1", "theirs": "2"}, "managedFields": [{
                "manager": "m", "operation": "Apply",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:ours": {}}}, "f:spec": {"f:env": {
                    "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}}}
            }]},
            "spec": {"env": [{"name": "USER", "value": "u"}, {"name": "A", "value": "1", "defaulted": true}],
                     "rules": [{"a": 1, "b": 2}], "replicas": 3}
        })
    }

    #[test]
    fn t26_an_equal_body_is_settled_whatever_others_added() {
        let desired =
            json!({"metadata": {"labels": {"ours": "1"}}, "spec": {"env": [{"name": "A", "value": "1"}]}});
        assert!(is_settled(&desired, &live(), "m", None));
    }

    #[test]
    fn a_changed_value_is_not_settled() {
        let desired =
            json!({"metadata": {"labels": {"ours": "1"}}, "spec": {"env": [{"name": "A", "value": "2"}]}});
        assert!(!is_settled(&desired, &live(), "m", None));
    }

    #[test]
    fn a_field_that_leaves_the_body_is_not_settled() {
        let desired = json!({"metadata": {"labels": {"ours": "1"}}, "spec": {"env": []}});
        assert!(!is_settled(&desired, &live(), "m", None));
        assert!(is_settled(&desired, &live(), "other", None));
    }

    #[test]
    fn a_label_added_to_a_selector_is_a_difference() {
        let desired = json!({"spec": {"selector": {"a": "1"}}});
        let more = json!({"spec": {"selector": {"a": "1", "b": "2"}}});
        assert!(is_settled(&desired, &desired, "m", None));
        assert!(!is_settled(&desired, &more, "m", None));
    }

    #[test]
    fn a_field_that_another_manager_changed_is_named() {
        let live = json!({
            "metadata": {"managedFields": [
                {"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {"f:kept": {}}}},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:theirs": {}, "f:priority": {}}}},
            ]},
            "spec": {"kept": 1, "priority": 7, "theirs": 2},
        });
        let desired = json!({"spec": {"kept": 1, "priority": 1000}});
        let found = drift(&desired, &live, "m").expect("a drift");
        assert_eq!(
            (found.field.as_str(), found.manager.as_str()),
            ("spec.priority", "kubectl-edit")
        );
        assert_eq!(drift(&json!({"spec": {"priority": 7}}), &live, "m"), None);
        assert_eq!(
            drift(&json!({"spec": {"kept": 2}}), &live, "m"),
            None,
            "our own change is no drift"
        );
    }

    #[test]
    fn t21_a_users_flag_among_ours_is_no_drift_but_a_changed_one_of_ours_is() {
        let with = |command: &[&str]| json!({"spec": {"command": command}});
        let mut live = with(&["./p", "--users=1", "--ours=1"]);
        live["metadata"] = json!({"managedFields": [
            {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": {"f:spec": {"f:command": {}}}}]});
        assert_eq!(drift(&with(&["./p", "--ours=1", "--users=1"]), &live, "m"), None);
        assert!(drift(&with(&["./p", "--ours=2", "--users=1"]), &live, "m").is_some());
    }

    #[test]
    fn an_atomic_list_is_compared_whole() {
        let fewer = json!({"spec": {"rules": [{"a": 1}]}});
        assert!(!is_settled(&fewer, &live(), "other", None));
        let equal = json!({"spec": {"rules": [{"b": 2, "a": 1}]}});
        assert!(is_settled(&equal, &live(), "other", None));
    }
}
