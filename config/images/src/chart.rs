//! The Helm chart as an OCI artifact, in the shape that `helm install oci://…` reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    contents::Texts,
    image::{Blob, Image, canonical},
    layer::{Entry, Layer, Tree},
};

const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The chart `name` of `files`, with `Chart.yaml` already parsed as `definition`.
///
/// # Errors
/// When a path is too long for the archive.
pub fn artifact(
    name: &str,
    definition: &BTreeMap<String, Value>,
    files: &Texts,
    epoch: u64,
) -> std::io::Result<Image> {
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (format!("{name}/{path}"), Entry::text(text)))
        .collect();
    let layer = Layer::new(&tree, epoch)?;
    let config = Blob {
        media_type: CONFIG.to_owned(),
        bytes: canonical(&json!(definition)),
    };
    let content = Blob {
        media_type: CONTENT.to_owned(),
        bytes: layer.blob.bytes,
    };
    let text = |member: &str| definition.get(member).and_then(Value::as_str).unwrap_or_default();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [content.descriptor()],
        "annotations": {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": text("version"),
            "org.opencontainers.image.description": text("description"),
            "org.opencontainers.image.created": crate::contents::rfc3339(epoch),
        },
    });
    let manifest = Blob {
        media_type: MANIFEST.to_owned(),
        bytes: canonical(&manifest),
    };
    Ok(Image {
        manifest,
        blobs: vec![config, content],
        architecture: String::new(),
    })
}
