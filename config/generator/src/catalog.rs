//! `catalog/`: the file-based catalog (olm.md 2.1) with every released bundle and that of this tree. Bundle images are
//! named by the digest that follows from their files.

use std::collections::BTreeMap;

use anyhow::Context;
use mcp_gateway_images::{
    REGISTRY,
    contents::{self, Texts},
};
use semver::Version;
use serde_json::{Value, json};

use crate::{
    bundle,
    inputs::Inputs,
    release,
    tree::{Files, yaml},
};

/// Members of the CSV's spec that the catalog repeats (property `olm.csv.metadata`).
const METADATA: [&str; 10] = [
    "description",
    "displayName",
    "installModes",
    "keywords",
    "labels",
    "links",
    "maintainers",
    "maturity",
    "minKubeVersion",
    "provider",
];

pub(crate) fn files(inputs: &Inputs, candidate: &Files) -> anyhow::Result<Files> {
    let mut bundles: BTreeMap<&Version, Texts> = inputs
        .released
        .iter()
        .map(|(version, files)| (version, files.clone()))
        .collect();
    bundles.insert(&inputs.version, image_files(candidate));
    let mut documents = vec![package(inputs), channel(&bundles)?];
    for (version, files) in &bundles {
        documents.push(entry(version, files, inputs.epoch)?);
    }
    Ok(Files::from([(
        "catalog/mcp-gateway/catalog.yaml".into(),
        yaml(&documents)?,
    )]))
}

/// What of the generated files is in the bundle's image.
fn image_files(candidate: &Files) -> Texts {
    let path = |path: &std::path::Path| {
        path.strip_prefix("bundle")
            .ok()
            .map(|path| path.to_string_lossy().into_owned())
    };
    let inside = candidate
        .iter()
        .filter_map(|(name, text)| Some((path(name)?, text.clone())));
    inside.filter(|(name, _)| !name.ends_with("Dockerfile")).collect()
}

fn package(inputs: &Inputs) -> Value {
    json!({
        "schema": "olm.package",
        "name": release::PACKAGE,
        "defaultChannel": release::CHANNEL,
        "description": inputs.description,
        "icon": {"base64data": inputs.icon, "mediatype": "image/svg+xml"},
    })
}

/// The edges are those that the CSVs name themselves.
fn channel(bundles: &BTreeMap<&Version, Texts>) -> anyhow::Result<Value> {
    let mut entries = Vec::new();
    for files in bundles.values() {
        let csv = csv(files)?;
        let mut entry = json!({"name": csv.pointer("/metadata/name")});
        let members = entry.as_object_mut().context("an entry is an object")?;
        if let Some(replaces) = csv.pointer("/spec/replaces") {
            members.insert("replaces".to_owned(), replaces.clone());
        }
        if let Some(range) = csv.pointer("/metadata/annotations/olm.skipRange") {
            members.insert("skipRange".to_owned(), range.clone());
        }
        entries.push(entry);
    }
    Ok(
        json!({"schema": "olm.channel", "name": release::CHANNEL, "package": release::PACKAGE, "entries": entries}),
    )
}

fn entry(version: &Version, files: &Texts, epoch: u64) -> anyhow::Result<Value> {
    let csv = csv(files)?;
    let annotations = files
        .get("metadata/annotations.yaml")
        .context("a bundle without annotations")?;
    let labels = contents::labels(&serde_saphyr::from_str(annotations)?);
    let created = csv
        .pointer("/metadata/annotations/createdAt")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let epoch = contents::epoch(created).unwrap_or(epoch);
    let digest = contents::bundle(&version.to_string(), files, &labels, epoch)?.digest();
    let image = format!("{REGISTRY}/bundle@{digest}");
    let mut related = vec![json!({"name": "", "image": image})];
    related.extend(
        csv.pointer("/spec/relatedImages")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .cloned(),
    );
    Ok(json!({
        "schema": "olm.bundle",
        "name": csv.pointer("/metadata/name"),
        "package": release::PACKAGE,
        "image": image,
        "properties": properties(&csv, version),
        "relatedImages": related,
    }))
}

fn properties(csv: &Value, version: &Version) -> Vec<Value> {
    let owned = csv
        .pointer("/spec/customresourcedefinitions/owned")
        .and_then(Value::as_array);
    let mut properties: Vec<Value> = owned
        .into_iter()
        .flatten()
        .map(|crd| {
            let group = crd["name"].as_str().and_then(|name| name.split_once('.')).map(|(_, group)| group);
            json!({"type": "olm.gvk", "value": {"group": group, "kind": crd["kind"], "version": crd["version"]}})
        })
        .collect();
    properties.push(json!({
        "type": "olm.package",
        "value": {"packageName": release::PACKAGE, "version": version.to_string()},
    }));
    properties.push(json!({"type": "olm.csv.metadata", "value": metadata(csv)}));
    properties
}

fn metadata(csv: &Value) -> Value {
    let mut metadata = json!({
        "annotations": csv.pointer("/metadata/annotations"),
        "apiServiceDefinitions": {},
        "crdDescriptions": csv.pointer("/spec/customresourcedefinitions"),
    });
    if let Some(members) = metadata.as_object_mut() {
        for name in METADATA {
            let value = if name == "labels" {
                csv.pointer("/metadata/labels")
            } else {
                csv["spec"].get(name)
            };
            if let Some(value) = value {
                members.insert(name.to_owned(), value.clone());
            }
        }
    }
    metadata
}

fn csv(files: &Texts) -> anyhow::Result<Value> {
    let text = files
        .iter()
        .find(|(path, _)| path.ends_with(".clusterserviceversion.yaml"))
        .context("a bundle without a CSV")?;
    serde_saphyr::from_str(text.1).context(bundle::CSV_FILE)
}
