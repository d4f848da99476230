//! The supplementary configurations of OLM installs (olm.md 6.3). OLM writes the namespace selectors of the webhooks
//! that a CSV defines, and knows no match conditions; these objects cover the other namespaces, and fail closed for
//! changes of extensions without making a deletion depend on the webhook. Pure, over the objects as they are stored.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{CHANGED, DEFAULTS, EXCLUSIVITY, EXCLUSIVITY_OF_CHANGES, RULES, condition};
use crate::names;

/// Name of both supplementary objects.
pub const NAME: &str = "mcp-gateway-webhook-supplementary";
/// Label that OLM puts on what it makes: namespace of the CSV.
pub const OWNER_NAMESPACE_LABEL: &str = "olm.owner.namespace";
const OWNER_KIND_LABEL: &str = "olm.owner.kind";
const NAME_LABEL: &str = "olm.webhook-description-generate-name";
/// Begin of the label by which OLM selects the namespaces of an OperatorGroup.
const GROUP_LABEL: &str = "olm.operatorgroup.uid/";

/// One of the two kinds of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationKind {
    /// `ValidatingWebhookConfiguration`
    Validating,
    /// `MutatingWebhookConfiguration`
    Mutating,
}

impl ConfigurationKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Validating, Self::Mutating];

    /// The kind as it stands in objects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "ValidatingWebhookConfiguration",
            Self::Mutating => "MutatingWebhookConfiguration",
        }
    }

    /// The plural, as it stands in URLs.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Validating => "validatingwebhookconfigurations",
            Self::Mutating => "mutatingwebhookconfigurations",
        }
    }

    /// Names of the webhooks that OLM makes an object each for.
    fn webhooks(self) -> &'static [&'static str] {
        match self {
            Self::Validating => &[EXCLUSIVITY, EXCLUSIVITY_OF_CHANGES, RULES],
            Self::Mutating => &[DEFAULTS],
        }
    }
}

/// The supplementary object to those of `stored` (all of `kind`) that OLM made for a CSV in `namespace`. `None` when
/// there is nothing to supplement; one that exists then goes.
#[must_use]
pub fn supplementary(kind: ConfigurationKind, namespace: &str, stored: &[Value]) -> Option<Value> {
    let made: Vec<&Value> = stored
        .iter()
        .filter(|object| is_made_by_olm(kind, namespace, object))
        .collect();
    // During an upgrade the objects of two CSVs exist side by side; a name stands for one webhook only.
    let mut newest: BTreeMap<&str, &Value> = BTreeMap::new();
    for &object in &made {
        let entry = newest.entry(label(object, NAME_LABEL)).or_insert(object);
        if age(object) > age(entry) {
            *entry = object;
        }
    }
    let webhooks: Vec<Value> = newest
        .values()
        .filter_map(|object| object.pointer("/webhooks/0"))
        .flat_map(complements)
        .collect();
    let owners: Vec<Value> = made.iter().map(|object| owner(kind, object)).collect();
    (!webhooks.is_empty()).then(|| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind.as_str(),
            "metadata": {
                "name": NAME,
                "labels": {names::MANAGED_BY_LABEL.0: names::MANAGED_BY_LABEL.1},
                "ownerReferences": owners,
            },
            "webhooks": webhooks,
        })
    })
}

fn is_made_by_olm(kind: ConfigurationKind, namespace: &str, object: &Value) -> bool {
    label(object, OWNER_KIND_LABEL) == "ClusterServiceVersion"
        && label(object, OWNER_NAMESPACE_LABEL) == namespace
        && kind.webhooks().contains(&label(object, NAME_LABEL))
        && object.pointer("/metadata/deletionTimestamp").is_none()
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// RFC 3339 in UTC sorts as text; the UID decides within a second.
fn age(object: &Value) -> (&str, &str) {
    let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    (text("/metadata/creationTimestamp"), text("/metadata/uid"))
}

fn owner(kind: ConfigurationKind, object: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind.as_str(),
        "name": object.pointer("/metadata/name"),
        "uid": object.pointer("/metadata/uid"),
        "controller": false,
        "blockOwnerDeletion": false,
    })
}

/// What covers the namespaces that `webhook` does not: one webhook for each requirement of its selector. Changes of
/// extensions are covered everywhere, because OLM's own webhook fails open for them.
fn complements(webhook: &Value) -> Vec<Value> {
    let with = |selector: Option<Value>| {
        let mut webhook = webhook.clone();
        if let Some(members) = webhook.as_object_mut() {
            members.remove("namespaceSelector");
            members.extend(selector.map(|selector| ("namespaceSelector".to_owned(), selector)));
        }
        webhook
    };
    if webhook.get("name").and_then(Value::as_str) == Some(EXCLUSIVITY_OF_CHANGES) {
        let mut guard = with(None);
        if let Some(members) = guard.as_object_mut() {
            members.insert("failurePolicy".to_owned(), json!("Fail"));
            members.insert(
                "matchConditions".to_owned(),
                json!([condition("spec-changed", CHANGED)]),
            );
        }
        return vec![guard];
    }
    let requirements = webhook.get("namespaceSelector").map(requirements);
    requirements
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, requirement)| {
            let selector = negated(requirement).map(|negated| json!({"matchExpressions": [negated]}));
            let mut webhook = with(selector);
            // Names are unique within an object.
            if let Some(name) = webhook.get_mut("name").filter(|_| index > 0) {
                *name = json!(format!("s{index}.{}", name.as_str().unwrap_or_default()));
            }
            webhook
        })
        .collect()
}

/// `matchLabels` and `matchExpressions` of a selector, all as expressions.
fn requirements(selector: &Value) -> Vec<Value> {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    labels
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            if key.starts_with(GROUP_LABEL) {
                json!({"key": key, "operator": "Exists"})
            } else {
                json!({"key": key, "operator": "In", "values": [value]})
            }
        })
        .chain(expressions.into_iter().flatten().cloned())
        .collect()
}

/// The requirement that holds exactly where `requirement` does not. `None` for an operator that we do not know: then
/// every namespace is covered.
fn negated(requirement: &Value) -> Option<Value> {
    let operator = match requirement.get("operator").and_then(Value::as_str)? {
        "In" => "NotIn",
        "NotIn" => "In",
        "Exists" => "DoesNotExist",
        "DoesNotExist" => "Exists",
        _ => return None,
    };
    let mut negated = requirement.clone();
    *negated.get_mut("operator")? = json!(operator);
    Some(negated)
}

#[cfg(test)]
mod tests;
