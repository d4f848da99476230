//! What a person or an earlier step wrote and the bundle is made from: `config/manifests`, the samples, released bundles.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use semver::Version;
use serde_json::Value;

use crate::manager;

/// The samples that are examples of the bundle, one for each kind.
const SAMPLES: [&str; 4] = [
    "mcpauthpolicy",
    "mcpgatewayextension",
    "mcpserverregistrations",
    "mcpvirtualserver",
];

/// Everything that is read.
pub(crate) struct Inputs {
    /// Version of this tree.
    pub(crate) version: Version,
    /// When it was (or will be) released, seconds since 1970.
    pub(crate) epoch: u64,
    /// Go's names of the architectures that images exist for.
    pub(crate) architectures: Vec<String>,
    /// `sha256:…` by image name.
    pub(crate) digests: BTreeMap<String, String>,
    /// Markdown.
    pub(crate) description: String,
    /// SVG in base64.
    pub(crate) icon: String,
    /// One object of each kind.
    pub(crate) examples: Vec<Value>,
    /// Files of each released bundle, without those of this tree's version.
    pub(crate) released: BTreeMap<Version, BTreeMap<String, String>>,
}

impl Inputs {
    /// Reads them below `root`.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let manifests = root.join("config/manifests");
        let release = document(&manifests.join("release.yaml"))?;
        let images = document(&manifests.join("images.yaml"))?;
        let version = text(&release, "version")?;
        ensure!(
            version == manager::VERSION,
            "config/manifests/release.yaml is about {version}, [workspace.package] version is {}: make them one",
            manager::VERSION
        );
        ensure!(
            text(&images, "version")? == version,
            "config/manifests/images.yaml is of another version: run `make images`"
        );
        let version = Version::parse(version).context("the version")?;
        let mut released = released(&root.join("bundle/released"))?;
        released.remove(&version);
        Ok(Self {
            epoch: release
                .get("epoch")
                .and_then(Value::as_u64)
                .context("release.yaml: epoch")?,
            architectures: serde_json::from_value(member(&images, "architectures"))
                .context("images.yaml: architectures")?,
            digests: serde_json::from_value(member(&images, "digests")).context("images.yaml: digests")?,
            description: read(&manifests.join("description.md"))?,
            icon: STANDARD.encode(read(&manifests.join("icon.svg"))?.trim_end()),
            examples: SAMPLES
                .iter()
                .map(|name| example(root, name))
                .collect::<anyhow::Result<_>>()?,
            version,
            released,
        })
    }

    /// The released version that this one replaces.
    pub(crate) fn predecessor(&self) -> Option<&Version> {
        self.released.keys().rfind(|version| **version < self.version)
    }

    /// The image of a part, by digest.
    pub(crate) fn image(&self, name: &str) -> anyhow::Result<String> {
        let digest = self
            .digests
            .get(name)
            .with_context(|| format!("images.yaml has no digest of {name}"))?;
        Ok(format!("{}/{name}@{digest}", mcp_gateway_images::REGISTRY))
    }
}

/// The first object of a sample file.
fn example(root: &Path, name: &str) -> anyhow::Result<Value> {
    let path = root.join("config/samples").join(format!("{name}.yaml"));
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(&read(&path)?).with_context(|| path.display().to_string())?;
    ensure!(!objects.is_empty(), "{} is empty", path.display());
    Ok(objects.remove(0))
}

/// The files of every released bundle, by version.
pub(crate) fn released(folder: &Path) -> anyhow::Result<BTreeMap<Version, BTreeMap<String, String>>> {
    let mut released = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(released);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let version = Version::parse(&name)
                .with_context(|| format!("{} is not named by a version", path.display()))?;
            released.insert(version, files(&path)?);
        }
    }
    Ok(released)
}

/// Every file below `root`, by its path relative to it.
pub(crate) fn files(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path: PathBuf = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .context("a file outside its folder")?
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, read(&path)?);
            }
        }
    }
    Ok(files)
}

fn document(path: &Path) -> anyhow::Result<Value> {
    serde_saphyr::from_str(&read(path)?).with_context(|| path.display().to_string())
}

fn member(document: &Value, name: &str) -> Value {
    document.get(name).cloned().unwrap_or_default()
}

fn text<'a>(document: &'a Value, member: &str) -> anyhow::Result<&'a str> {
    document
        .get(member)
        .and_then(Value::as_str)
        .with_context(|| format!("{member} is missing"))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
