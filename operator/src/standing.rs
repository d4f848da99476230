//! Whose object is it (operator.md 4.3)? Decided from ownerReferences and labels alone. Pure.

use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::Value;

use crate::{blueprint::Blueprint, kinds::Kind};

/// Whose object it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This extension controls it, or may adopt it.
    Ours,
    /// Another extension of the namespace controls it: its name.
    Predecessor(String),
    /// Somebody else's.
    Foreign,
}

/// True when `extension_uid` controls the object.
pub(crate) fn is_controlled_by(object: &Value, extension_uid: &str) -> bool {
    controller(object)
        .and_then(|owner| owner.get("uid"))
        .and_then(Value::as_str)
        == Some(extension_uid)
}

/// True for an EnvoyFilter that carries our labels for the extension `key`.
pub(crate) fn is_filter_of(object: &Value, key: &ObjectKey) -> bool {
    let label = |name: &str| {
        object
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(name))
            .and_then(Value::as_str)
    };
    label(names::MANAGED_BY_LABEL.0) == Some(names::MANAGED_BY_LABEL.1)
        && label(names::EXTENSION_NAME_LABEL) == Some(names::label_value(&key.name).as_str())
        && label(names::EXTENSION_NAMESPACE_LABEL) == Some(names::label_value(&key.namespace).as_str())
}

/// Whose object `live` is, seen from the extension of `blueprint`.
pub(crate) fn standing(live: &Value, kind: Kind, blueprint: &Blueprint) -> Standing {
    if kind == Kind::EnvoyFilter {
        return if is_filter_of(live, &blueprint.key) {
            Standing::Ours
        } else {
            Standing::Foreign
        };
    }
    if is_controlled_by(live, blueprint.uid()) {
        return Standing::Ours;
    }
    let Some(owner) = controller(live) else {
        return if is_adoptable(live, kind) {
            Standing::Ours
        } else {
            Standing::Foreign
        };
    };
    let is_extension = owner.get("kind").and_then(Value::as_str) == Some(Kind::Extension.name());
    match owner.get("name").and_then(Value::as_str) {
        Some(name) if is_extension => Standing::Predecessor(format!("{}/{name}", blueprint.namespace())),
        _ => Standing::Foreign,
    }
}

/// A config Secret of an older install: our label and no owner at all (T32).
fn is_adoptable(live: &Value, kind: Kind) -> bool {
    let is = |pointer: &str, wanted: &str| live.pointer(pointer).and_then(Value::as_str) == Some(wanted);
    let ownerless = live
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    let aggregated = live
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(names::AGGREGATED_LABEL))
        .and_then(Value::as_str);
    kind == Kind::Secret
        && is("/metadata/name", names::CONFIG_SECRET)
        && ownerless
        && aggregated == Some("true")
}

fn controller(object: &Value) -> Option<&Value> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}
