//! The CRDs of the bundle: owned, structural, one stored version, no conversion (olm.md 1.3, 2.3).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    bundle::{Bundle, items},
    finding::Report,
};

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let mut shipped = BTreeSet::new();
    for (file, crd) in &bundle.crds {
        let name = crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        report.require(
            !shipped.iter().any(|(other, _)| other == name),
            "crd-unique",
            (file, "/metadata/name"),
            format!("{name} a second time"),
        );
        for version in items(&crd["spec"], "versions") {
            shipped.insert((
                name.to_owned(),
                version["name"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        one(file, crd, report);
    }
    let owned: BTreeSet<(String, String)> = bundle
        .owned()
        .map(|entry| {
            let text = |name: &str| {
                entry
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            (text("name"), text("version"))
        })
        .collect();
    let place = (bundle.csv_file.as_str(), "/spec/customresourcedefinitions/owned");
    for (name, version) in owned.symmetric_difference(&shipped) {
        report.add(
            "crd-owned",
            place,
            format!("{name} {version} is owned or shipped, but not both"),
        );
    }
}

fn one(file: &str, crd: &Value, report: &mut Report) {
    let spec = &crd["spec"];
    let stored = items(spec, "versions")
        .filter(|version| version["storage"] == true)
        .count();
    report.require(
        stored == 1,
        "crd-stored",
        (file, "/spec/versions"),
        format!("{stored} stored versions"),
    );
    let strategy = spec
        .pointer("/conversion/strategy")
        .and_then(Value::as_str)
        .unwrap_or("None");
    report.require(
        strategy == "None",
        "crd-conversion",
        (file, "/spec/conversion"),
        "the scoped install of the guide excludes conversion",
    );
    let kept = spec
        .get("preserveUnknownFields")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    report.require(
        !kept,
        "crd-conversion",
        (file, "/spec/preserveUnknownFields"),
        "must be false",
    );
    for version in items(spec, "versions") {
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        let filled = schema
            .pointer("/properties/spec/properties")
            .and_then(Value::as_object)
            .is_some_and(|properties| !properties.is_empty());
        report.require(
            filled,
            "crd-validation",
            (file, "/spec/versions"),
            "a version without a schema of its spec",
        );
        structural(file, schema, "", report);
    }
}

/// A structural schema: a type on every level, no references, nothing about properties inside of logical junctors.
fn structural(file: &str, schema: &Value, path: &str, report: &mut Report) {
    let Some(members) = schema.as_object() else { return };
    let free = members.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        || members.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    report.require(
        free || members.contains_key("type"),
        "crd-structural",
        (file, path),
        "a level without a type",
    );
    for word in ["$ref", "definitions", "patternProperties", "dependencies"] {
        report.require(
            !members.contains_key(word),
            "crd-structural",
            (file, path),
            format!("{word} is not allowed"),
        );
    }
    for (name, property) in members
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        structural(file, property, &format!("{path}/{name}"), report);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = members.get(name) {
            structural(file, inner, &format!("{path}/{name}"), report);
        }
    }
}
