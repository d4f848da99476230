//! Who owns which field of a child according to `managedFields`, and the hand-over to our manager (operator.md 6.2).
//! Pure. Invariant: only fields that the apply body holds are taken, and only from managers that are operators of ours.

use mcp_gateway_api::names;
use serde_json::{Map, Value, json};

use crate::fields::member;

/// Managers of Update operations whose fields are ours: older operators, and our own creates and replacements.
const FORMER: [&str; 4] = [
    names::FIELD_MANAGER,
    "mcp_controller",
    "manager",
    "mcp-controller",
];

/// The `managedFields` in which every field of `desired` that a former manager holds belongs to our apply; nothing when
/// there is no such field, so that a second call never asks for a write.
pub(crate) fn handed_over(desired: &Value, live: &Value) -> Option<Vec<Value>> {
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    let mut taken = Map::new();
    let mut kept = Vec::new();
    for entry in entries {
        let fields = entry.get("fieldsV1").and_then(Value::as_object);
        match fields.filter(|_| is_former(entry)) {
            Some(fields) => {
                let (ours, rest) = divided(fields, desired);
                merge(&mut taken, ours);
                kept.extend(remainder(entry, rest));
            }
            None => kept.push(entry.clone()),
        }
    }
    if taken.is_empty() {
        return None;
    }
    match kept.iter_mut().find(|entry| is_our_apply(entry)) {
        Some(entry) => {
            if let Some(fields) = entry.get_mut("fieldsV1").and_then(Value::as_object_mut) {
                merge(fields, taken);
            }
        }
        None => kept.push(our_apply(desired, entries, &taken)),
    }
    Some(kept)
}

fn text<'a>(entry: &'a Value, member: &str) -> Option<&'a str> {
    entry.get(member).and_then(Value::as_str)
}

fn is_former(entry: &Value) -> bool {
    text(entry, "operation") == Some("Update")
        && text(entry, "subresource").is_none_or(str::is_empty)
        && text(entry, "manager").is_some_and(|manager| FORMER.contains(&manager))
}

fn is_our_apply(entry: &Value) -> bool {
    text(entry, "operation") == Some("Apply")
        && text(entry, "subresource").is_none_or(str::is_empty)
        && text(entry, "manager") == Some(names::FIELD_MANAGER)
}

fn our_apply(desired: &Value, entries: &[Value], fields: &Map<String, Value>) -> Value {
    let time = entries.iter().find_map(|entry| text(entry, "time"));
    let mut entry = json!({
        "manager": names::FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": desired.get("apiVersion"),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    if let (Some(time), Some(entry)) = (time, entry.as_object_mut()) {
        entry.insert("time".to_owned(), json!(time));
    }
    entry
}

/// What a former manager keeps: an older operator what we do not apply, our own Update nothing, because what it holds
/// beyond the body are the API server's defaults.
fn remainder(entry: &Value, rest: Map<String, Value>) -> Option<Value> {
    if rest.is_empty() || text(entry, "manager") == Some(names::FIELD_MANAGER) {
        return None;
    }
    let mut entry = entry.clone();
    entry
        .as_object_mut()?
        .insert("fieldsV1".to_owned(), Value::Object(rest));
    Some(entry)
}

/// A `fieldsV1` tree cut in two: what `value` holds, and the rest. A set without any field in it is empty.
fn divided(fields: &Map<String, Value>, value: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let (mut ours, mut rest) = (Map::new(), Map::new());
    for (path, below) in fields.iter().filter(|(path, _)| *path != ".") {
        let Some(found) = member(path, value) else {
            rest.insert(path.clone(), below.clone());
            continue;
        };
        match below.as_object().filter(|below| !below.is_empty()) {
            Some(below) => {
                let (inner_ours, inner_rest) = divided(below, found);
                insert(&mut ours, path, inner_ours);
                insert(&mut rest, path, inner_rest);
            }
            None => {
                ours.insert(path.clone(), json!({}));
            }
        }
    }
    if !ours.is_empty()
        && let Some(itself) = fields.get(".")
    {
        ours.insert(".".to_owned(), itself.clone());
    }
    (ours, rest)
}

fn insert(into: &mut Map<String, Value>, path: &str, fields: Map<String, Value>) {
    if !fields.is_empty() {
        into.insert(path.to_owned(), Value::Object(fields));
    }
}

fn merge(into: &mut Map<String, Value>, fields: Map<String, Value>) {
    for (path, below) in fields {
        match (into.get_mut(&path).and_then(Value::as_object_mut), below) {
            (Some(former), Value::Object(below)) => merge(former, below),
            (_, below) => {
                into.insert(path, below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::is_settled;

    fn desired() -> Value {
        json!({"apiVersion": "v1", "metadata": {"labels": {"ours": "1"}}, "spec": {"env": [{"name": "A", "value": "1"}]}})
    }

    fn live(manager: &str, operation: &str) -> Value {
        json!({
            "metadata": {"labels": {"ours": "1"}, "managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": manager, "operation": operation, "time": "2026-01-01T00:00:00Z", "fieldsV1": {
                    "f:metadata": {"f:labels": {".": {}, "f:ours": {}}},
                    "f:spec": {"f:strategy": {}, "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
                        "k:{\"name\":\"B\"}": {".": {}, "f:name": {}}}},
                }},
            ]},
            "spec": {"env": [{"name": "A", "value": "1"}, {"name": "B"}], "replicas": 3},
        })
    }

    fn entry<'a>(fields: &'a [Value], manager: &str, operation: &str) -> Option<&'a Value> {
        fields
            .iter()
            .find(|entry| entry["manager"] == manager && entry["operation"] == operation)
    }

    #[test]
    fn what_an_older_operator_wrote_and_we_own_is_handed_over_once() {
        let mut live = live("mcp_controller", "Update");
        let fields = handed_over(&desired(), &live).expect("a hand-over");
        let ours = entry(&fields, names::FIELD_MANAGER, "Apply").expect("our entry");
        assert!(ours["fieldsV1"]["f:metadata"]["f:labels"]["f:ours"].is_object());
        assert!(ours["fieldsV1"]["f:spec"]["f:env"]["k:{\"name\":\"A\"}"]["f:value"].is_object());
        let rest = entry(&fields, "mcp_controller", "Update").expect("its rest");
        assert!(rest["fieldsV1"]["f:spec"]["f:strategy"].is_object());
        assert!(rest["fieldsV1"]["f:spec"]["f:env"]["k:{\"name\":\"B\"}"].is_object());
        assert!(rest["fieldsV1"].get("f:metadata").is_none());
        live["metadata"]["managedFields"] = json!(fields);
        assert_eq!(handed_over(&desired(), &live), None, "once");
        assert!(is_settled(&desired(), &live, names::FIELD_MANAGER, None));
    }

    #[test]
    fn our_own_create_becomes_an_apply_of_exactly_the_body() {
        let mut live = live(names::FIELD_MANAGER, "Update");
        let fields = handed_over(&desired(), &live).expect("a hand-over");
        assert_eq!(entry(&fields, names::FIELD_MANAGER, "Update"), None);
        live["metadata"]["managedFields"] = json!(fields);
        assert!(is_settled(&desired(), &live, names::FIELD_MANAGER, None));
    }

    #[test]
    fn nothing_is_taken_from_a_user_or_a_status() {
        for manager in ["kubectl-client-side-apply", "argocd-controller", "helm"] {
            assert_eq!(handed_over(&desired(), &live(manager, "Update")), None);
        }
        assert_eq!(handed_over(&desired(), &live("manager", "Apply")), None);
        let mut status = live("manager", "Update");
        status["metadata"]["managedFields"][1]["subresource"] = json!("status");
        assert_eq!(handed_over(&desired(), &status), None);
    }
}
