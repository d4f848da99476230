//! Blobs, image manifests and indexes (OCI image specification 1.1), addressed by digest.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layer::Layer;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index of images for several platforms.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes with a media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What the bytes are.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// `sha256:…` of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Blob {
    fn json(media_type: &str, value: &Value) -> Self {
        Self {
            media_type: media_type.to_owned(),
            bytes: canonical(value),
        }
    }

    /// `sha256:…` of the bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    /// The descriptor by which others refer to it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// JSON with sorted members, also when some crate of the build makes serde_json keep the order of insertion: the bytes
/// decide the digest.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    sorted(value.clone()).to_string().into_bytes()
}

/// `value` with sorted members.
#[must_use]
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members
                .into_iter()
                .map(|(name, value)| (name, sorted(value)))
                .collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        value => value,
    }
}

/// Sets a member of a JSON object.
pub(crate) fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// How an image runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Program and first arguments; none for images that only carry files.
    pub entrypoint: Vec<String>,
    /// `uid:gid`; empty for images that only carry files.
    pub user: String,
    /// Labels, by key.
    pub labels: Vec<(String, String)>,
    /// RFC 3339 time that the image says it was made at.
    pub created: String,
}

/// One image for one platform, with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest; its digest names the image.
    pub manifest: Blob,
    /// Configuration and layers.
    pub blobs: Vec<Blob>,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

impl Image {
    /// The Linux image of `layers` for `architecture` (Go's name).
    #[must_use]
    pub fn new(architecture: &str, settings: &Settings, layers: &[Layer]) -> Self {
        let labels: Value = settings
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let mut run = json!({"Labels": labels});
        if !settings.entrypoint.is_empty() {
            set(&mut run, "Entrypoint", json!(settings.entrypoint));
            set(&mut run, "User", json!(settings.user));
            set(&mut run, "WorkingDir", json!("/"));
            set(
                &mut run,
                "Env",
                json!(["PATH=/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]),
            );
        }
        let config = json!({
            "created": settings.created,
            "architecture": architecture,
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created": settings.created, "created_by": "make images"})).collect::<Vec<_>>(),
        });
        let config = Blob::json(CONFIG, &config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(|layer| layer.blob.descriptor()).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config)
            .chain(layers.iter().map(|layer| layer.blob.clone()))
            .collect();
        Self {
            manifest: Blob::json(MANIFEST, &manifest),
            blobs,
            architecture: architecture.to_owned(),
        }
    }

    /// An artifact that says something about `subject` (a "referrer"), e.g. its SBOM.
    #[must_use]
    pub fn referrer(subject: &Blob, media_type: &str, content: Vec<u8>) -> Self {
        let empty = Blob {
            media_type: "application/vnd.oci.empty.v1+json".to_owned(),
            bytes: b"{}".to_vec(),
        };
        let content = Blob {
            media_type: media_type.to_owned(),
            bytes: content,
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": media_type,
            "config": empty.descriptor(),
            "layers": [content.descriptor()],
            "subject": subject.descriptor(),
        });
        Self {
            manifest: Blob::json(MANIFEST, &manifest),
            blobs: vec![empty, content],
            architecture: String::new(),
        }
    }
}

/// The index over the images of one name, one for each platform. Its digest is what manifests refer to.
#[must_use]
pub fn index(images: &[Image]) -> Blob {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut descriptor = image.manifest.descriptor();
            set(
                &mut descriptor,
                "platform",
                json!({"architecture": image.architecture, "os": "linux"}),
            );
            descriptor
        })
        .collect();
    Blob::json(
        INDEX,
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
    )
}
