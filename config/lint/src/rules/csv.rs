//! Name, version, edges, modes, examples and Deployments of the CSV (olm.md 1.3, 1.4).

use std::collections::BTreeSet;

use semver::{Version, VersionReq};
use serde_json::Value;

use super::format::dns_label;
use crate::{bundle::Bundle, finding::Report};

/// Annotations that OLM reads, in its spelling.
const SPECIAL: [&str; 6] = [
    "olm.skipRange",
    "olm.targetNamespaces",
    "olm.operatorGroup",
    "olm.operatorNamespace",
    "olm.maxOpenShiftVersion",
    "olm.properties",
];
const MODES: [(&str, bool); 4] = [
    ("OwnNamespace", true),
    ("SingleNamespace", true),
    ("MultiNamespace", false),
    ("AllNamespaces", true),
];

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    name(bundle, report);
    edges(bundle, report);
    modes(bundle, report);
    let minimum = bundle.text("/spec/minKubeVersion");
    let parses = Version::parse(minimum).is_ok();
    report.require(
        parses,
        "min-kube-version",
        (file, "/spec/minKubeVersion"),
        format!("{minimum:?} is not a version"),
    );
    examples(bundle, report);
    let annotations = bundle
        .csv
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    for key in annotations.into_iter().flatten().map(|(key, _)| key) {
        let meant = SPECIAL
            .iter()
            .find(|special| special.eq_ignore_ascii_case(key) && *special != key);
        if let Some(meant) = meant {
            report.add("annotation-case", (file, key), format!("OLM reads {meant}"));
        }
    }
    deployments(bundle, report);
}

fn name(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let name = bundle.text("/metadata/name");
    let place = (file, "/metadata/name");
    match bundle.version() {
        Some(version) if version != Version::new(0, 0, 0) => {
            let wanted = format!("{}.v{version}", bundle.package());
            report.require(
                name == wanted,
                "csv-name",
                place,
                format!("{name:?} must be {wanted:?}"),
            );
        }
        _ => report.add(
            "csv-name",
            (file, "/spec/version"),
            "must be a semantic version other than 0.0.0",
        ),
    }
    report.require(
        name.len() <= 63,
        "csv-name",
        place,
        "is also a label value: at most 63 characters",
    );
}

fn edges(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let prefix = format!("{}.v", bundle.package());
    let other = |name: &str| {
        let version = name
            .strip_prefix(&prefix)
            .and_then(|version| Version::parse(version).ok());
        version.is_some_and(|version| Some(version) != bundle.version())
    };
    let named = bundle
        .csv
        .pointer("/spec/replaces")
        .into_iter()
        .chain(bundle.list("/spec/skips"));
    for name in named {
        let good = name.as_str().is_some_and(other);
        report.require(
            good,
            "csv-edges",
            (file, "/spec/replaces"),
            format!("{name} is not another version of the package"),
        );
    }
    let range = bundle.annotation("olm.skipRange");
    if !range.is_empty() {
        let wrong = skip_range(range)
            .is_none_or(|range| bundle.version().is_some_and(|version| range.matches(&version)));
        report.require(
            !wrong,
            "csv-edges",
            (file, "olm.skipRange"),
            "must be a range that ends before this version",
        );
    }
}

/// A range in OLM's syntax: comparisons with spaces between.
pub(crate) fn skip_range(text: &str) -> Option<VersionReq> {
    VersionReq::parse(&text.split_whitespace().collect::<Vec<_>>().join(", ")).ok()
}

fn modes(bundle: &Bundle, report: &mut Report) {
    let modes: BTreeSet<(&str, bool)> = bundle
        .list("/spec/installModes")
        .filter_map(|mode| Some((mode.get("type")?.as_str()?, mode.get("supported")?.as_bool()?)))
        .collect();
    let count = bundle.list("/spec/installModes").count();
    let good = modes == BTreeSet::from(MODES) && count == MODES.len();
    report.require(
        good,
        "install-modes",
        (&bundle.csv_file, "/spec/installModes"),
        format!("must be exactly {MODES:?}"),
    );
}

fn examples(bundle: &Bundle, report: &mut Report) {
    let place = (bundle.csv_file.as_str(), "alm-examples");
    let text = bundle.annotation("alm-examples");
    let examples = match serde_json::from_str::<Vec<Value>>(text) {
        Ok(examples) => examples,
        Err(error) => {
            return report.add(
                "alm-examples",
                place,
                format!("must be a JSON list of objects: {error}"),
            );
        }
    };
    let kind = |object: &Value| {
        object
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut shown: Vec<String> = examples.iter().map(kind).collect();
    let mut owned: Vec<String> = bundle.owned().map(kind).collect();
    shown.sort();
    owned.sort();
    report.require(
        shown == owned,
        "alm-examples",
        place,
        format!("examples of {shown:?}, but owned are {owned:?}"),
    );
}

fn deployments(bundle: &Bundle, report: &mut Report) {
    let place = (bundle.csv_file.as_str(), "/spec/install/spec/deployments");
    let names: Vec<&str> = bundle.deployments().map(|(name, _)| name).collect();
    report.require(!names.is_empty(), "deployments", place, "at least one Deployment");
    for name in names {
        report.require(
            dns_label(name),
            "deployments",
            place,
            format!("{name:?} is not a DNS label"),
        );
    }
    let used: BTreeSet<&str> = bundle
        .deployments()
        .filter_map(|(_, spec)| spec.pointer("/template/spec/serviceAccountName")?.as_str())
        .collect();
    for (file, object) in bundle
        .others
        .iter()
        .filter(|(_, object)| object["kind"] == "ServiceAccount")
    {
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        report.require(
            !used.contains(name),
            "service-account",
            (file, "/metadata/name"),
            format!("OLM makes {name} itself; leave the manifest out"),
        );
    }
}
