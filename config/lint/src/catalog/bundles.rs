//! The bundle blobs: properties, images, and agreement with the files that are kept.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde_json::{Value, json};

use super::Catalog;
use crate::{
    bundle::{Bundle, Files, items, strings},
    finding::Report,
};

pub(super) fn check(catalog: &Catalog<'_>, kept: &BTreeMap<Version, Files>, report: &mut Report) {
    let mut versions = BTreeSet::new();
    for blob in catalog.schema("olm.bundle") {
        let name = blob.get("name").and_then(Value::as_str).unwrap_or_default();
        let place = (catalog.file, name);
        let version = version(place, blob, report);
        let fresh = versions.insert(version.clone());
        report.require(
            fresh,
            "catalog-versions",
            place,
            format!("version {version:?} a second time"),
        );
        let inlined = properties(blob, "olm.bundle.object").next().is_some();
        report.require(
            !inlined,
            "catalog-properties",
            place,
            "objects are inlined; use olm.csv.metadata",
        );
        let described = properties(blob, "olm.csv.metadata").count() == 1;
        report.require(
            described,
            "catalog-properties",
            place,
            "exactly one olm.csv.metadata",
        );
        let found = version.and_then(|version| kept.get_key_value(&version));
        match found {
            Some((version, files)) => agreement(place, (catalog, blob), (version, files), report),
            None => report.add(
                "catalog-released",
                place,
                "no such bundle is kept in the repository",
            ),
        }
    }
    for version in kept
        .keys()
        .filter(|version| !versions.contains(&Some((*version).clone())))
    {
        report.add(
            "catalog-released",
            (catalog.file, ""),
            format!("{version} is not in the catalog"),
        );
    }
}

fn properties<'a>(blob: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
    items(blob, "properties")
        .filter(move |property| property["type"] == kind)
        .filter_map(|property| property.get("value"))
}

fn version(place: (&str, &str), blob: &Value, report: &mut Report) -> Option<Version> {
    let packages: Vec<&Value> = properties(blob, "olm.package").collect();
    let [package] = packages.as_slice() else {
        report.add(
            "catalog-properties",
            place,
            format!("{} properties olm.package; one is needed", packages.len()),
        );
        return None;
    };
    let good = package.get("packageName") == blob.get("package");
    report.require(
        good,
        "catalog-properties",
        place,
        "olm.package names another package",
    );
    Version::parse(package.get("version")?.as_str()?).ok()
}

/// Image, kinds and edges follow from the bundle's files.
fn agreement(
    place: (&str, &str),
    (catalog, blob): (&Catalog<'_>, &Value),
    (version, files): (&Version, &Files),
    report: &mut Report,
) {
    let bundle = Bundle::read(files);
    let image = blob.get("image").and_then(Value::as_str).unwrap_or_default();
    let digest = digest(version, files, &bundle);
    let wanted = digest.map(|digest| format!("{}/bundle@{digest}", mcp_gateway_images::REGISTRY));
    report.require(
        wanted.as_deref() == Some(image),
        "catalog-image",
        place,
        format!("{image:?} must be {wanted:?}"),
    );
    let kinds: BTreeSet<String> = properties(blob, "olm.gvk").map(ToString::to_string).collect();
    let owned: BTreeSet<String> = bundle.owned().map(|entry| gvk(entry).to_string()).collect();
    report.require(
        kinds == owned,
        "catalog-properties",
        place,
        format!("olm.gvk {kinds:?}, but owned are {owned:?}"),
    );
    let entries = catalog
        .schema("olm.channel")
        .flat_map(|channel| items(channel, "entries"));
    for entry in entries.filter(|entry| entry["name"] == place.1) {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let skips: Vec<&str> = strings(entry, "skips").collect();
        let same = text("replaces") == bundle.text("/spec/replaces")
            && text("skipRange") == bundle.annotation("olm.skipRange")
            && skips
                == bundle
                    .list("/spec/skips")
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>();
        report.require(
            same,
            "catalog-edges",
            place,
            "replaces, skips or skipRange differ from the CSV",
        );
    }
}

fn gvk(entry: &Value) -> Value {
    let group = entry
        .get("name")
        .and_then(Value::as_str)
        .and_then(|name| name.split_once('.'))
        .map(|(_, group)| group);
    json!({"group": group, "kind": entry["kind"], "version": entry["version"]})
}

fn digest(version: &Version, files: &Files, bundle: &Bundle) -> Option<String> {
    let inside: Files = files
        .iter()
        .filter(|(name, _)| name.contains('/'))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    let labels: Vec<(String, String)> = bundle
        .annotations
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let epoch = mcp_gateway_images::contents::epoch(bundle.annotation("createdAt"))?;
    let image = mcp_gateway_images::contents::bundle(&version.to_string(), &inside, &labels, epoch).ok()?;
    Some(image.digest())
}
