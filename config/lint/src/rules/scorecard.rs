//! The static tests of operator-sdk's scorecard (olm.md 3.2).

use std::collections::BTreeSet;

use crate::{
    bundle::{Bundle, items},
    finding::Report,
};

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let examples = bundle.examples();
    for example in &examples {
        let kind = example["kind"].as_str().unwrap_or_default();
        report.require(
            example["spec"].is_object(),
            "examples-spec",
            (file, kind),
            "the example has no spec",
        );
    }
    for entry in bundle.owned() {
        let kind = entry["kind"].as_str().unwrap_or_default();
        let place = (file, kind);
        report.require(
            items(entry, "resources").count() > 0,
            "crd-resources",
            place,
            "no resources",
        );
        report.require(
            items(entry, "statusDescriptors").count() > 0,
            "status-descriptors",
            place,
            "no status descriptor",
        );
        let described: BTreeSet<&str> = items(entry, "specDescriptors")
            .filter_map(|descriptor| descriptor["path"].as_str())
            .map(|path| path.split('.').next().unwrap_or_default())
            .collect();
        let used = examples.iter().filter(|example| example["kind"] == kind);
        for field in used.flat_map(|example| {
            example["spec"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
        }) {
            let good = described.contains(field.as_str());
            report.require(
                good,
                "spec-descriptors",
                place,
                format!("no descriptor for spec.{field} of the example"),
            );
        }
    }
}
