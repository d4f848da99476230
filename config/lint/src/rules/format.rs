//! Layout, file names, size, annotations and kinds (olm.md 1.1, 1.2).

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::{
    bundle::{Bundle, Files},
    finding::Report,
};

const ANNOTATIONS: &str = "metadata/annotations.yaml";
const PREFIX: &str = "operators.operatorframework.io.bundle.";
/// Bytes that all manifests may take when gzipped, and the share above which tools warn.
const LIMIT: usize = 1 << 20;
const SHARE: usize = 85;

const KINDS: [&str; 20] = [
    "ClusterServiceVersion",
    "CustomResourceDefinition",
    "Secret",
    "ConfigMap",
    "Service",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "PrometheusRule",
    "ServiceMonitor",
    "PodDisruptionBudget",
    "PriorityClass",
    "VerticalPodAutoscaler",
    "ConsoleYAMLSample",
    "ConsoleQuickStart",
    "ConsoleCLIDownload",
    "ConsoleLink",
    "ConsolePlugin",
];

/// Parses every file.
pub(crate) fn read(files: &Files, report: &mut Report) -> Bundle {
    let mut bundle = Bundle::default();
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".yaml")) {
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                report.add("one-document", (name, ""), format!("not YAML: {error}"));
                continue;
            }
        };
        let [document] = documents.as_slice() else {
            report.add(
                "one-document",
                (name, ""),
                format!("{} documents; put each into a file of its own", documents.len()),
            );
            continue;
        };
        sort(&mut bundle, name, document, report);
    }
    bundle
}

fn sort(bundle: &mut Bundle, name: &str, document: &Value, report: &mut Report) {
    if name == ANNOTATIONS {
        let members = document
            .get("annotations")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        bundle.annotations = members
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
    } else if name.starts_with("manifests/") {
        match document.get("kind").and_then(Value::as_str) {
            Some("ClusterServiceVersion") if bundle.csv.is_null() => {
                name.clone_into(&mut bundle.csv_file);
                bundle.csv = document.clone();
            }
            Some("ClusterServiceVersion") => {
                report.add("layout", (name, ""), "a second CSV; a bundle has one");
            }
            Some("CustomResourceDefinition") => bundle.crds.push((name.to_owned(), document.clone())),
            _ => bundle.others.push((name.to_owned(), document.clone())),
        }
    }
}

pub(crate) fn check(files: &Files, bundle: &Bundle, report: &mut Report) {
    report.require(
        bundle.csv.is_object(),
        "layout",
        ("manifests/", ""),
        "no ClusterServiceVersion",
    );
    report.require(
        files.contains_key(ANNOTATIONS),
        "layout",
        (ANNOTATIONS, ""),
        "the file is missing",
    );
    for name in files.keys() {
        names(name, report);
    }
    for (name, object) in &bundle.others {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        report.require(
            KINDS.contains(&kind),
            "kinds",
            (name, "/kind"),
            format!("{kind:?} is not taken by OLM or by the community pipeline; leave it out"),
        );
    }
    size(files, report);
    annotations(bundle, report);
    image_labels(files, bundle, report);
}

fn names(name: &str, report: &mut Report) {
    let folder = name.split_once('/').map(|(folder, _)| folder);
    let known = folder.is_some_and(|folder| ["manifests", "metadata", "tests"].contains(&folder));
    report.require(
        known || name == "bundle.Dockerfile",
        "layout",
        (name, ""),
        "not a place of a bundle",
    );
    if let Some(file) = name.strip_prefix("manifests/") {
        let good = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        report.require(
            file.chars().all(good),
            "file-name",
            (name, ""),
            "becomes a key of a ConfigMap: use letters, digits, '-', '_' and '.'",
        );
    }
}

fn size(files: &Files, report: &mut Report) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut written = Ok(());
    for (_, text) in files.iter().filter(|(name, _)| name.starts_with("manifests/")) {
        written = written.and_then(|()| gzip.write_all(text.as_bytes()));
    }
    let size = written
        .and_then(|()| gzip.finish())
        .map_or(usize::MAX, |bytes| bytes.len());
    let allowed = LIMIT / 100 * SHARE;
    report.require(
        size <= allowed,
        "size",
        ("manifests/", ""),
        format!("{size} bytes when gzipped, at most {allowed} (OLM refuses more than {LIMIT})"),
    );
}

fn annotations(bundle: &Bundle, report: &mut Report) {
    let value = |name: &str| {
        bundle
            .annotations
            .get(&format!("{PREFIX}{name}"))
            .map_or("", String::as_str)
    };
    for (name, wanted) in [
        ("mediatype.v1", "registry+v1"),
        ("manifests.v1", "manifests/"),
        ("metadata.v1", "metadata/"),
    ] {
        report.require(
            value(name) == wanted,
            "bundle-annotations",
            (ANNOTATIONS, name),
            format!("must be {wanted:?}"),
        );
    }
    let package = value("package.v1");
    report.require(
        dns_label(package),
        "bundle-annotations",
        (ANNOTATIONS, "package.v1"),
        "must be a DNS label",
    );
    let channels: Vec<&str> = value("channels.v1").split(',').map(str::trim).collect();
    let filled = channels.iter().all(|channel| !channel.is_empty());
    report.require(
        filled,
        "bundle-annotations",
        (ANNOTATIONS, "channels.v1"),
        "must name at least one channel",
    );
    let default = value("channel.default.v1");
    report.require(
        channels.contains(&default) && !default.is_empty(),
        "bundle-annotations",
        (ANNOTATIONS, "channel.default.v1"),
        "must be one of the channels",
    );
}

/// The Dockerfile is the other place where labels are written; `make images` takes them from the annotations.
fn image_labels(files: &Files, bundle: &Bundle, report: &mut Report) {
    let Some(text) = files.get("bundle.Dockerfile") else {
        return;
    };
    let labels = text
        .lines()
        .filter_map(|line| line.strip_prefix("LABEL ")?.split_once('='));
    let labels: std::collections::BTreeMap<String, String> = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let same = labels == bundle.annotations;
    report.require(
        same,
        "image-labels",
        ("bundle.Dockerfile", ""),
        "labels and metadata/annotations.yaml differ",
    );
}

/// A DNS-1123 label.
pub(crate) fn dns_label(name: &str) -> bool {
    let inner =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
