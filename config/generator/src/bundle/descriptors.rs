//! What the console shows of our kinds: names, descriptions and one descriptor for each field, from the CRD schemas.

use mcp_gateway_api::crds;
use serde_json::{Value, json};

/// Children that an object of a kind leads to, as the console lists them.
fn resources(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "MCPGatewayExtension" => &[
            ("Deployment", "v1"),
            ("EnvoyFilter", "v1alpha3"),
            ("HTTPRoute", "v1"),
            ("NetworkPolicy", "v1"),
            ("PodDisruptionBudget", "v1"),
            ("Role", "v1"),
            ("RoleBinding", "v1"),
            ("Secret", "v1"),
            ("Service", "v1"),
            ("ServiceAccount", "v1"),
        ],
        "MCPServerRegistration" => &[("HTTPRoute", "v1"), ("Secret", "v1")],
        _ => &[("Secret", "v1")],
    }
}

/// `customresourcedefinitions.owned`.
pub(super) fn owned() -> anyhow::Result<Vec<Value>> {
    crds::all()?.iter().map(|crd| Ok(entry(&crd.manifest))).collect()
}

fn entry(crd: &Value) -> Value {
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/spec/names/kind");
    let schema = crd
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap_or(&Value::Null);
    let children = resources(kind)
        .iter()
        .map(|(kind, version)| json!({"kind": kind, "name": "", "version": version}));
    json!({
        "name": text("/metadata/name"),
        "kind": kind,
        "version": text("/spec/versions/0/name"),
        "displayName": words(kind),
        "description": schema["description"],
        "resources": children.collect::<Vec<_>>(),
        "specDescriptors": fields(schema, "spec"),
        "statusDescriptors": fields(schema, "status"),
    })
}

/// A descriptor for each member of `part`.
fn fields(schema: &Value, part: &str) -> Vec<Value> {
    let members = schema
        .pointer(&format!("/properties/{part}/properties"))
        .and_then(Value::as_object);
    members
        .into_iter()
        .flatten()
        .map(|(name, member)| {
            let mut descriptor = json!({
                "path": name,
                "displayName": words(name),
                "description": member["description"],
            });
            if let (Some(hints), Some(members)) = (hints(name, member), descriptor.as_object_mut()) {
                members.insert("x-descriptors".to_owned(), json!(hints));
            }
            descriptor
        })
        .collect()
}

/// How the console shows a field.
fn hints(name: &str, member: &Value) -> Option<Vec<String>> {
    if name == "conditions" {
        return Some(vec!["urn:alm:descriptor:io.kubernetes.conditions".to_owned()]);
    }
    if let Some(values) = member["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str);
        return Some(
            values
                .map(|value| format!("urn:alm:descriptor:com.tectonic.ui:select:{value}"))
                .collect(),
        );
    }
    let hint = match member["type"].as_str() {
        Some("integer") => "number",
        Some("boolean") => "booleanSwitch",
        Some("string") => "text",
        _ => return None,
    };
    Some(vec![format!("urn:alm:descriptor:com.tectonic.ui:{hint}")])
}

/// `backendPingIntervalSeconds` and `MCPGatewayExtension` as words.
fn words(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (index, character) in characters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|at| characters.get(at));
        let after = characters.get(index + 1);
        let begins = character.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase())
                || (before.is_some() && after.is_some_and(|after| after.is_lowercase())));
        if begins {
            text.push(' ');
        }
        if index == 0 {
            text.extend(character.to_uppercase());
        } else {
            text.push(*character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn names_become_words() {
        assert_eq!(words("MCPGatewayExtension"), "MCP Gateway Extension");
        assert_eq!(
            words("backendPingIntervalSeconds"),
            "Backend Ping Interval Seconds"
        );
        assert_eq!(words("oauthProtectedResource"), "Oauth Protected Resource");
    }
}
