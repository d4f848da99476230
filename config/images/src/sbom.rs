//! What is linked into a program: a CycloneDX 1.6 document, and one line a crate for the licences directory. Read from
//! `cargo metadata`; no clock and no random serial number, so that it is the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// One crate that is linked in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Crate name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SPDX expression; empty when the crate names none.
    pub license: String,
}

/// The crates that `package` links for the platform that `metadata` (of `cargo metadata --format-version 1
/// --filter-platform …`) was asked for; crates that only build scripts or tests use are left out.
#[must_use]
pub fn components(metadata: &Value, package: &str) -> BTreeSet<Component> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .filter_map(|item| Some((item["id"].as_str()?, item)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = list(metadata.pointer("/resolve/nodes").unwrap_or(&Value::Null))
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let root = packages
        .iter()
        .find(|(_, item)| item["name"] == package && item["source"].is_null())
        .map(|(id, _)| *id);
    let mut todo: Vec<&str> = root.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) || packages.get(id).is_some_and(|item| is_macro(item)) {
            continue;
        }
        let linked = nodes
            .get(id)
            .map(|node| list(&node["deps"]))
            .into_iter()
            .flatten();
        let normal =
            linked.filter(|dependency| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null()));
        todo.extend(normal.filter_map(|dependency| dependency["pkg"].as_str()));
    }
    let described = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .filter(|item| !is_macro(item) && !item["source"].is_null());
    described.map(|item| component(item)).collect()
}

fn is_macro(package: &Value) -> bool {
    list(&package["targets"]).any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"))
}

fn component(package: &Value) -> Component {
    let text = |member: &str| {
        package
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Component {
        name: text("name"),
        version: text("version"),
        license: text("license"),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The document for program `name`.
#[must_use]
pub fn document(name: &str, version: &str, components: &BTreeSet<Component>) -> Vec<u8> {
    let components: Vec<Value> = components
        .iter()
        .map(|component| {
            let purl = format!("pkg:cargo/{}@{}", component.name, component.version);
            json!({
                "type": "library", "name": component.name, "version": component.version, "purl": purl, "bom-ref": purl,
                "licenses": [{"expression": component.license}],
            })
        })
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version, "bom-ref": name}},
        "components": components,
    });
    crate::image::canonical(&document)
}

/// One line a crate: `name version licence`.
#[must_use]
pub fn notices(components: &BTreeSet<Component>) -> String {
    components
        .iter()
        .map(|item| format!("{} {} {}\n", item.name, item.version, item.license))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let package = |name: &str, source: Value, kind: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source, "targets": [{"kind": [kind]}]});
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let registry = json!("registry+https://example.com");
        let metadata = json!({
            "packages": [
                package("app", Value::Null, "bin"), package("lib", registry.clone(), "lib"), package("deep", registry.clone(), "lib"),
                package("derive", registry.clone(), "proc-macro"), package("syn", registry.clone(), "lib"),
                package("cc", registry.clone(), "lib"), package("proptest", registry, "lib"),
            ],
            "resolve": {"nodes": [
                {"id": "app", "deps": [dependency("lib", Value::Null), dependency("derive", Value::Null), dependency("proptest", json!("dev"))]},
                {"id": "lib", "deps": [dependency("deep", Value::Null), dependency("cc", json!("build"))]},
                {"id": "derive", "deps": [dependency("syn", Value::Null)]},
            ]},
        });
        let names: Vec<String> = components(&metadata, "app")
            .into_iter()
            .map(|item| item.name)
            .collect();
        assert_eq!(names, ["deep", "lib"]);
    }
}
