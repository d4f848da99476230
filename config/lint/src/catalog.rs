//! Rules over a file-based catalog (olm.md 2.1, 2.5), and over its agreement with the bundles that are kept.

mod bundles;
mod graph;

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde_json::Value;

use crate::{Finding, bundle::Files, bundle::items, finding::Report};

/// Every rule over the catalog `text` (file `name`), whose bundles must be exactly `bundles`, by version.
#[must_use]
pub fn lint(name: &str, text: &str, bundles: &BTreeMap<Version, Files>) -> Vec<Finding> {
    let mut report = Report::default();
    let blobs: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(blobs) => blobs,
        Err(error) => {
            report.add("one-document", (name, ""), format!("not YAML: {error}"));
            return report.finish();
        }
    };
    let catalog = Catalog {
        file: name,
        blobs: &blobs,
    };
    package(&catalog, &mut report);
    graph::check(&catalog, &mut report);
    bundles::check(&catalog, bundles, &mut report);
    deprecations(&catalog, &mut report);
    report.finish()
}

/// The blobs of a catalog.
pub(crate) struct Catalog<'a> {
    file: &'a str,
    blobs: &'a [Value],
}

impl<'a> Catalog<'a> {
    /// Blobs of one schema.
    fn schema(&self, schema: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.blobs.iter().filter(move |blob| blob["schema"] == schema)
    }

    /// Names of blobs of one schema.
    fn names(&self, schema: &'static str) -> BTreeSet<&'a str> {
        self.schema(schema)
            .filter_map(|blob| blob.get("name")?.as_str())
            .collect()
    }
}

fn package(catalog: &Catalog<'_>, report: &mut Report) {
    let packages: Vec<&Value> = catalog.schema("olm.package").collect();
    let channels = catalog.names("olm.channel");
    let [package] = packages.as_slice() else {
        return report.add(
            "catalog-package",
            (catalog.file, ""),
            format!("{} packages; one is needed", packages.len()),
        );
    };
    let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
    let label = crate::rules::format::dns_label(name);
    report.require(
        label,
        "catalog-package",
        (catalog.file, name),
        "the package's name must be a DNS label",
    );
    let default = package
        .get("defaultChannel")
        .and_then(Value::as_str)
        .unwrap_or_default();
    report.require(
        channels.contains(default),
        "catalog-package",
        (catalog.file, name),
        format!("no channel {default:?}"),
    );
    for blob in catalog
        .blobs
        .iter()
        .filter(|blob| blob["schema"] != "olm.package")
    {
        let same = blob["package"] == name;
        report.require(
            same,
            "catalog-package",
            (catalog.file, name),
            "a blob of another package",
        );
    }
}

fn deprecations(catalog: &Catalog<'_>, report: &mut Report) {
    let blobs: Vec<&Value> = catalog.schema("olm.deprecations").collect();
    let place = (catalog.file, "olm.deprecations");
    report.require(
        blobs.len() <= 1,
        "catalog-deprecations",
        place,
        "one blob a package",
    );
    for entry in blobs.iter().flat_map(|blob| items(blob, "entries")) {
        let message = entry.get("message").and_then(Value::as_str).unwrap_or_default();
        report.require(
            !message.is_empty(),
            "catalog-deprecations",
            place,
            "a message for each entry",
        );
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let known = match text("/reference/schema") {
            "olm.package" => true,
            "olm.channel" => catalog.names("olm.channel").contains(text("/reference/name")),
            "olm.bundle" => catalog.names("olm.bundle").contains(text("/reference/name")),
            _ => false,
        };
        report.require(
            known,
            "catalog-deprecations",
            place,
            format!("{} is not in the catalog", entry["reference"]),
        );
    }
}
