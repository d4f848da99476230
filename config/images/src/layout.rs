//! An OCI image layout: a directory with the blobs of one image name and an index of what it is called.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::image::{self, Blob, Image};

/// Why a layout could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {path}: {source}")]
pub struct LayoutError {
    path: PathBuf,
    source: std::io::Error,
}

/// One image name with everything that is published under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Short name, e.g. `operator`.
    pub name: String,
    /// Tag, the version.
    pub tag: String,
    /// The index over the platforms.
    pub index: Blob,
    /// The images of the index.
    pub images: Vec<Image>,
    /// Artifacts about them (SBOM).
    pub referrers: Vec<Image>,
}

impl Published {
    /// Under `name:tag`, the images and what is said about them.
    #[must_use]
    pub fn new(name: &str, tag: &str, images: Vec<Image>, referrers: Vec<Image>) -> Self {
        Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
            index: image::index(&images),
            images,
            referrers,
        }
    }

    /// An artifact that is no container image: its manifest itself carries the tag.
    #[must_use]
    pub fn artifact(name: &str, tag: &str, artifact: Image) -> Self {
        let index = artifact.manifest.clone();
        Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
            index,
            images: vec![artifact],
            referrers: Vec::new(),
        }
    }

    /// The digest by which manifests name it.
    #[must_use]
    pub fn digest(&self) -> String {
        self.index.digest()
    }

    /// Manifests first to last in the order in which a registry takes them: images, referrers, then the index.
    pub fn manifests(&self) -> impl Iterator<Item = &Blob> {
        self.images
            .iter()
            .chain(&self.referrers)
            .map(|image| &image.manifest)
            .chain([&self.index])
    }

    /// Configurations, layers and artifact contents.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.images
            .iter()
            .chain(&self.referrers)
            .flat_map(|image| &image.blobs)
    }

    /// Writes the layout `folder/<name>`, replacing what is there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, LayoutError> {
        let root = folder.join(&self.name);
        let blobs = root.join("blobs/sha256");
        if root.exists() {
            fs::remove_dir_all(&root).map_err(|source| LayoutError {
                path: root.clone(),
                source,
            })?;
        }
        fs::create_dir_all(&blobs).map_err(|source| LayoutError {
            path: blobs.clone(),
            source,
        })?;
        for blob in self.blobs().chain(self.manifests()) {
            write(
                &blobs.join(blob.digest().trim_start_matches("sha256:")),
                &blob.bytes,
            )?;
        }
        write(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(&root.join("index.json"), &image::canonical(&self.top()))?;
        Ok(root)
    }

    fn top(&self) -> Value {
        let mut named = self.index.descriptor();
        image::set(
            &mut named,
            "annotations",
            json!({"org.opencontainers.image.ref.name": self.tag}),
        );
        let mut manifests = vec![named];
        manifests.extend(
            self.referrers
                .iter()
                .map(|referrer| referrer.manifest.descriptor()),
        );
        json!({"schemaVersion": 2, "mediaType": image::INDEX, "manifests": manifests})
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    fs::write(path, bytes).map_err(|source| LayoutError {
        path: path.to_owned(),
        source,
    })
}
