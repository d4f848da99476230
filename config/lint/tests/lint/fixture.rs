//! A good repository: this one, with digests as if its images were built, and the same one release later.

use std::path::Path;

use mcp_gateway_images::{contents, image::digest};
use mcp_gateway_lint::{
    bundle::{Bundle, Files},
    repository::Repository,
};
use semver::Version;
use serde_json::{Value, json};

pub(crate) const CSV: &str = "manifests/mcp-gateway.clusterserviceversion.yaml";
pub(crate) const EXTENSIONS: &str = "manifests/mcp.kuadrant.io_mcpgatewayextensions.yaml";

/// The repository as it is.
pub(crate) fn good() -> Repository {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut repository = Repository::read(&root).unwrap();
    let (none, some) = ("0".repeat(64), "1".repeat(64));
    for text in repository.candidate.values_mut().chain([&mut repository.catalog]) {
        *text = text.replace(&none, &some);
    }
    // Rules are broken one by one in a repository without history; `next` adds a release.
    repository.released.clear();
    repository.sums.clear();
    csv(&mut repository, |csv| {
        csv["spec"].as_object_mut().unwrap().remove("replaces");
        csv["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove("olm.skipRange");
    });
    publish(&mut repository);
    repository
}

/// The same with its bundle released as 0.1.0 and itself 0.2.0.
pub(crate) fn next() -> Repository {
    let mut repository = good();
    csv(&mut repository, |csv| version(csv, "0.1.0"));
    let inside: Files = repository
        .candidate
        .iter()
        .filter(|(name, _)| name.contains('/'))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    repository.sums = inside
        .iter()
        .map(|(name, text)| {
            format!(
                "{}  0.1.0/{name}\n",
                digest(text.as_bytes()).trim_start_matches("sha256:")
            )
        })
        .collect();
    repository.released.insert(Version::new(0, 1, 0), inside);
    csv(&mut repository, |csv| {
        version(csv, "0.2.0");
        csv["spec"]["replaces"] = json!("mcp-gateway.v0.1.0");
        csv["metadata"]["annotations"]["olm.skipRange"] = json!(">=0.1.0 <0.2.0");
    });
    publish(&mut repository);
    repository
}

fn version(csv: &mut Value, version: &str) {
    csv["metadata"]["name"] = json!(format!("mcp-gateway.v{version}"));
    csv["spec"]["version"] = json!(version);
}

/// Writes the catalog anew, as the generator does.
pub(crate) fn publish(repository: &mut Repository) {
    let old: Vec<Value> = serde_saphyr::from_multiple(&repository.catalog).unwrap();
    let package = old
        .iter()
        .find(|blob| blob["schema"] == "olm.package")
        .unwrap()
        .clone();
    let template = old
        .iter()
        .find(|blob| blob["schema"] == "olm.bundle")
        .unwrap()
        .clone();
    let (mut entries, mut blobs) = (Vec::new(), Vec::new());
    for files in repository.released.values().chain([&repository.candidate]) {
        let (bundle, mut blob) = (Bundle::read(files), template.clone());
        let version = bundle.version().unwrap();
        let mut entry = json!({"name": bundle.text("/metadata/name")});
        if !bundle.text("/spec/replaces").is_empty() {
            entry["replaces"] = json!(bundle.text("/spec/replaces"));
            entry["skipRange"] = json!(bundle.annotation("olm.skipRange"));
        }
        entries.push(entry);
        let inside: Files = files
            .iter()
            .filter(|(name, _)| name.contains('/'))
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect();
        let labels: Vec<_> = bundle.annotations.clone().into_iter().collect();
        let epoch = contents::epoch(bundle.annotation("createdAt")).unwrap();
        let image = contents::bundle(&version.to_string(), &inside, &labels, epoch)
            .unwrap()
            .digest();
        blob["name"] = json!(bundle.text("/metadata/name"));
        blob["image"] = json!(format!("ghcr.io/mcp-gateway-operator/bundle@{image}"));
        for property in blob["properties"].as_array_mut().unwrap() {
            if property["type"] == "olm.package" {
                property["value"]["version"] = json!(version.to_string());
            }
        }
        blobs.push(blob);
    }
    let channel =
        json!({"schema": "olm.channel", "name": "preview", "package": "mcp-gateway", "entries": entries});
    blobs.splice(0..0, [package, channel]);
    catalog_text(repository, &blobs);
}

fn catalog_text(repository: &mut Repository, blobs: &[Value]) {
    let texts: Vec<String> = blobs
        .iter()
        .map(|blob| serde_saphyr::to_string(blob).unwrap())
        .collect();
    repository.catalog = texts.join("---\n");
}

/// Changes the CSV.
pub(crate) fn csv(repository: &mut Repository, change: impl FnOnce(&mut Value)) {
    file(repository, CSV, change);
}

/// Changes a file of the bundle.
pub(crate) fn file(repository: &mut Repository, name: &str, change: impl FnOnce(&mut Value)) {
    edit(&mut repository.candidate, name, change);
}

/// Changes one of `files`.
pub(crate) fn edit(files: &mut Files, name: &str, change: impl FnOnce(&mut Value)) {
    let text = files.get_mut(name).unwrap();
    let mut document: Value = serde_saphyr::from_str(text).unwrap();
    change(&mut document);
    *text = serde_saphyr::to_string(&document).unwrap();
}

/// Changes the blob of a schema in the catalog (the last one).
pub(crate) fn blob(repository: &mut Repository, schema: &str, change: impl FnOnce(&mut Value)) {
    let mut blobs: Vec<Value> = serde_saphyr::from_multiple(&repository.catalog).unwrap();
    change(blobs.iter_mut().rfind(|blob| blob["schema"] == schema).unwrap());
    catalog_text(repository, &blobs);
}

/// Changes the list of blobs.
pub(crate) fn blobs(repository: &mut Repository, change: impl FnOnce(&mut Vec<Value>)) {
    let mut blobs: Vec<Value> = serde_saphyr::from_multiple(&repository.catalog).unwrap();
    change(&mut blobs);
    catalog_text(repository, &blobs);
}
