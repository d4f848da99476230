//! The admission case table and its reader: the same cases run in process through the webhook's Router and end to
//! end through the real API server. Included by path from both test crates.

use serde::Deserialize;
use serde_json::{Value, json};

const WORLDS: &str = include_str!("admission/worlds.yaml");
const FILES: [(&str, &str); 4] = [
    ("extension", include_str!("admission/extension.yaml")),
    ("registration", include_str!("admission/registration.yaml")),
    ("virtual_server", include_str!("admission/virtual_server.yaml")),
    ("policy", include_str!("admission/policy.yaml")),
];
/// Namespaces of the cases; each case gets its own by a suffix, also in the expected texts.
const NAMESPACES: [&str; 4] = ["team-a", "team-b", "infra", "elsewhere"];

/// What the write must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expected {
    /// Let through in silence.
    Allow,
    /// Let through with the warnings listed.
    Warn,
    /// Refused with the lines listed.
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    #[serde(default)]
    world: Vec<String>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    old: Option<Value>,
    write: Value,
    expect: Expected,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    schema: bool,
    #[serde(default)]
    in_process_only: Option<String>,
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `<file>: <sentence>`.
    pub(crate) name: String,
    /// Objects that exist before the write.
    pub(crate) objects: Vec<Value>,
    /// The stored object, for an update.
    pub(crate) old: Option<Value>,
    /// The object to be stored.
    pub(crate) write: Value,
    /// Verdict.
    pub(crate) expect: Expected,
    /// Each must be contained in a line of the refusal, and there are no other lines.
    pub(crate) lines: Vec<String>,
    /// Each must be contained in a warning, and there are no other warnings.
    pub(crate) warnings: Vec<String>,
    /// The API server itself refuses it, by schema or CEL, in its own words.
    pub(crate) schema: bool,
    /// Why the case cannot run against a real API server.
    pub(crate) in_process_only: Option<String>,
}

/// Every case, each in namespaces of its own.
pub(crate) fn all() -> Vec<Case> {
    let mut number = 0;
    FILES
        .iter()
        .flat_map(|(file, text)| {
            let raw: Vec<Value> =
                serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}.yaml: {error}"));
            raw.into_iter().map(move |case| (*file, case))
        })
        .map(|(file, case)| {
            number += 1;
            read(file, &case, number)
        })
        .collect()
}

fn read(file: &str, case: &Value, number: usize) -> Case {
    let name = case["name"].to_string();
    let case: RawCase = serde_json::from_value(suffixed(case, number))
        .unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
    let worlds: Value = serde_saphyr::from_str(WORLDS).unwrap_or_else(|error| panic!("worlds.yaml: {error}"));
    let worlds = suffixed(&worlds, number);
    let named = case.world.iter().flat_map(|world| {
        worlds[world]
            .as_array()
            .unwrap_or_else(|| panic!("{name}: no world {world}"))
            .clone()
    });
    Case {
        name: format!("{file}: {}", case.name),
        objects: named.chain(case.objects).map(complete).collect(),
        old: case.old.map(complete),
        write: complete(case.write),
        expect: case.expect,
        lines: case.lines,
        warnings: case.warnings,
        schema: case.schema,
        in_process_only: case.in_process_only,
    }
}

fn suffixed(value: &Value, number: usize) -> Value {
    let mut text = value.to_string();
    for namespace in NAMESPACES {
        text = text.replace(namespace, &format!("{namespace}-{number}"));
    }
    serde_json::from_str(&text).expect("still JSON")
}

/// Fills in the apiVersion that goes with the kind.
fn complete(mut object: Value) -> Value {
    let version = match object["kind"].as_str().expect("a kind") {
        "Gateway" | "HTTPRoute" => "gateway.networking.k8s.io/v1",
        "ReferenceGrant" => "gateway.networking.k8s.io/v1beta1",
        "Namespace" | "Secret" | "ConfigMap" | "Service" => "v1",
        _ => "mcp.kuadrant.io/v1alpha1",
    };
    object["apiVersion"] = json!(version);
    object
}
