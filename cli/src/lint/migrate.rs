//! Spellings of older systems: named with their replacement, and replaced, so that the rest is judged all the same.

use mcp_gateway_api::names;
use serde_json::{Value, json};

/// Rewrites `object` to today's spelling and returns what was old: field path and advice.
pub(super) fn modernise(object: &mut Value) -> Vec<(&'static str, String)> {
    let mut old = Vec::new();
    let version = object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if version.starts_with(&format!("{}/", names::RETIRED_GROUP)) {
        old.push((
            "apiVersion",
            format!("{version} is not served; use {}/{}", names::GROUP, names::VERSION),
        ));
        set(
            object,
            "apiVersion",
            json!(format!("{}/{}", names::GROUP, names::VERSION)),
        );
    }
    let ours = object
        .get("apiVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| version.starts_with(names::GROUP));
    if !ours {
        old.extend(retired_grant(object));
        return old;
    }
    if object.get("kind").is_some_and(|kind| kind == "MCPServer") {
        old.push((
            "kind",
            "MCPServer is not served; use MCPServerRegistration".to_owned(),
        ));
        set(object, "kind", json!("MCPServerRegistration"));
    }
    let is_registration = object
        .get("kind")
        .is_some_and(|kind| kind == "MCPServerRegistration");
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(prefix) = spec.remove("toolPrefix") {
            old.push((
                "spec.toolPrefix",
                "is now called prefix; use spec.prefix".to_owned(),
            ));
            spec.entry("prefix").or_insert(prefix);
        }
        if is_registration {
            old.extend(several_targets(spec));
        }
    }
    old
}

/// Servers once had a list of routes.
fn several_targets(spec: &mut serde_json::Map<String, Value>) -> Option<(&'static str, String)> {
    let targets = spec.remove("targetRefs")?;
    let count = targets.as_array().map_or(0, Vec::len);
    if let Some(first) = targets.get(0) {
        spec.entry("targetRef").or_insert(first.clone());
    }
    let advice = format!("is now one spec.targetRef; make a registration for each of the {count} routes");
    Some(("spec.targetRefs", advice))
}

/// A ReferenceGrant from the retired group grants nothing.
fn retired_grant(object: &Value) -> Option<(&'static str, String)> {
    let is_grant = object.get("kind").is_some_and(|kind| kind == "ReferenceGrant");
    let from = object
        .pointer("/spec/from")
        .and_then(Value::as_array)
        .filter(|_| is_grant)?;
    let retired = from.iter().any(|entry| {
        entry
            .get("group")
            .is_some_and(|group| group == names::RETIRED_GROUP)
    });
    retired.then(|| {
        (
            "spec.from",
            format!(
                "group {} grants nothing; use {}",
                names::RETIRED_GROUP,
                names::GROUP
            ),
        )
    })
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
