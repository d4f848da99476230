//! Images: named by digest, all of them declared, nothing called latest (olm.md 3.4).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    bundle::{Bundle, items},
    finding::Report,
};

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let place = (bundle.csv_file.as_str(), "/spec/relatedImages");
    let declared: Vec<&str> = bundle
        .list("/spec/relatedImages")
        .filter_map(|image| image.get("image")?.as_str())
        .collect();
    let unique: BTreeSet<&str> = declared.iter().copied().collect();
    report.require(
        !declared.is_empty(),
        "related-images",
        place,
        "at least one image",
    );
    report.require(
        unique.len() == declared.len(),
        "related-images",
        place,
        "an image twice",
    );
    for image in &unique {
        report.require(
            by_digest(image),
            "related-images",
            place,
            format!("{image} must be named by digest (@sha256:…)"),
        );
        let built = !image.ends_with(&"0".repeat(64));
        report.require(
            built,
            "images-built",
            place,
            format!("{image} was never built: run `make images`"),
        );
    }
    let used = used(bundle);
    report.require(
        used == unique,
        "related-images",
        place,
        format!("declared {unique:?}, in use {used:?}"),
    );
    let container = bundle.annotation("containerImage");
    report.require(
        unique.contains(container),
        "related-images",
        (place.0, "containerImage"),
        "must be a related image",
    );
    for image in used.iter().chain([&container]) {
        report.require(
            !image.contains(":latest"),
            "no-latest",
            place,
            format!("{image} changes under the user"),
        );
    }
}

fn used(bundle: &Bundle) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for (_, spec) in bundle.deployments() {
        let pod = spec.pointer("/template/spec").unwrap_or(&Value::Null);
        for container in items(pod, "containers").chain(items(pod, "initContainers")) {
            used.extend(container.get("image").and_then(Value::as_str));
            let operands = items(container, "env").filter(|entry| {
                entry
                    .get("name")
                    .and_then(Value::as_str)
                    .is_some_and(|name| name.starts_with("RELATED_IMAGE_"))
            });
            used.extend(operands.filter_map(|entry| entry.get("value")?.as_str()));
        }
    }
    used
}

fn by_digest(image: &str) -> bool {
    image.split_once("@sha256:").is_some_and(|(_, hex)| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}
