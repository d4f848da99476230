//! Which local program stands for a container image. Images are known by their repository, whatever the tag or digest; an
//! addition may be for one whole reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::binaries::Binaries;

/// The registry path of the project's images.
const REGISTRY: &str = "ghcr.io/mcp-gateway-operator";
/// The image of the session store in guides.
const REDIS_IMAGE: &str = "docker.io/library/redis";
/// The image of the played Gateways' proxy.
pub(crate) const ENVOY_IMAGE: &str = "kit/envoy";

/// What an image's configuration says, with paths of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Program and first arguments; a container's `command` replaces it.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Default arguments; a container's `args`, or its `command`, replaces them.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Environment of the image.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` when empty.
    #[serde(default)]
    pub working_dir: String,
    /// Files of the image: path in the container → path on this machine (a link is made).
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
}

/// An image that the table does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ImageError {
    /// No entry.
    #[error("image {0:?} is not in the kit's table; known: {1}. Add it to {2}")]
    Unknown(String, String, String),
    /// The file of additions is broken.
    #[error("{0}: {1}")]
    Additions(String, String),
}

/// The table from repository to image.
#[derive(Debug, Clone)]
pub(crate) struct ImageTable {
    builtin: BTreeMap<String, Image>,
    additions: PathBuf,
}

impl ImageTable {
    /// The table for this project's programs in `bin_dir` and the foreign ones; `additions` is a JSON object of the same
    /// shape that is read again on each use and wins.
    pub(crate) fn new(bin_dir: &Path, binaries: &Binaries, additions: PathBuf) -> Self {
        let mut builtin = BTreeMap::new();
        for (image, program) in [
            ("operator", "mcp-gateway-operator"),
            ("webhook", "mcp-gateway-webhook"),
        ] {
            let entrypoint = vec![text(&bin_dir.join(program))];
            builtin.insert(
                format!("{REGISTRY}/{image}"),
                Image {
                    entrypoint,
                    ..Image::default()
                },
            );
        }
        builtin.insert(format!("{REGISTRY}/broker"), broker(bin_dir));
        builtin.insert(format!("{REGISTRY}/sample-everything"), everything(binaries));
        builtin.insert(format!("{REGISTRY}/sample-python"), python(binaries));
        builtin.insert(
            REDIS_IMAGE.to_owned(),
            Image {
                entrypoint: vec![text(&binaries.redis)],
                // Nothing is written: a container's root is not its own.
                cmd: ["--save", "", "--appendonly", "no", "--protected-mode", "no"]
                    .map(str::to_owned)
                    .to_vec(),
                ..Image::default()
            },
        );
        let entrypoint = crate::envoy::entrypoint(&text(&binaries.envoy));
        builtin.insert(
            ENVOY_IMAGE.to_owned(),
            Image {
                entrypoint,
                ..Image::default()
            },
        );
        Self { builtin, additions }
    }

    /// The image that `reference` (`repository[:tag][@digest]`) names.
    pub(crate) fn find(&self, reference: &str) -> Result<Image, ImageError> {
        let repository = repository(reference);
        let added = self.read_additions()?;
        let exact = added.get(reference).or_else(|| added.get(repository));
        if let Some(image) = exact.or_else(|| self.builtin.get(repository)) {
            return Ok(image.clone());
        }
        let known: Vec<&str> = self
            .builtin
            .keys()
            .chain(added.keys())
            .map(String::as_str)
            .collect();
        Err(ImageError::Unknown(
            reference.to_owned(),
            known.join(", "),
            text(&self.additions),
        ))
    }

    fn read_additions(&self) -> Result<BTreeMap<String, Image>, ImageError> {
        let Ok(json) = std::fs::read(&self.additions) else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_slice(&json)
            .map_err(|error| ImageError::Additions(text(&self.additions), error.to_string()))
    }
}

fn broker(bin_dir: &Path) -> Image {
    let program = bin_dir.join("mcp-gateway-broker");
    let files = ["/mcp_gateway", "/mcp-broker-router"].map(|path| (path.to_owned(), program.clone()));
    Image {
        entrypoint: vec![text(&program)],
        files: files.into(),
        ..Image::default()
    }
}

fn everything(binaries: &Binaries) -> Image {
    let servers = &binaries.servers;
    Image {
        entrypoint: vec![text(&servers.node), text(&servers.everything)],
        cmd: vec!["streamableHttp".to_owned()],
        env: BTreeMap::from([("PORT".to_owned(), "3001".to_owned())]),
        ..Image::default()
    }
}

fn python(binaries: &Binaries) -> Image {
    let servers = &binaries.servers;
    Image {
        entrypoint: vec![text(&servers.python), text(&servers.weather)],
        env: BTreeMap::from([
            ("PYTHONPATH".to_owned(), text(&servers.python_path)),
            // The root file system is read-only where the packages are.
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
        ]),
        ..Image::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The repository of an image reference: without digest and tag. A colon before the last slash belongs to a port.
fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(additions: PathBuf) -> ImageTable {
        ImageTable {
            builtin: BTreeMap::from([(format!("{REGISTRY}/broker"), broker(Path::new("/bins")))]),
            additions,
        }
    }

    #[test]
    fn a_repository_is_found_whatever_tag_or_digest() {
        assert_eq!(repository("r.example:5000/a/b"), "r.example:5000/a/b");
        assert_eq!(repository("r.example:5000/a/b:1.2"), "r.example:5000/a/b");
        assert_eq!(repository("a/b:1.2@sha256:00"), "a/b");
        assert_eq!(repository("a/b@sha256:00"), "a/b");
        let found = table(PathBuf::new())
            .find("ghcr.io/mcp-gateway-operator/broker:0.1.0")
            .unwrap();
        assert_eq!(found.files["/mcp_gateway"], Path::new("/bins/mcp-gateway-broker"));
    }

    #[test]
    fn an_unknown_image_is_refused_with_what_is_known() {
        let error = table(PathBuf::from("/s/images.json"))
            .find("nginx")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nginx") && error.contains("/broker") && error.contains("/s/images.json"),
            "{error}"
        );
    }

    #[test]
    fn additions_are_read_on_use_and_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("images.json");
        let table = table(file.clone());
        std::fs::write(&file, r#"{"nginx": {"entrypoint": ["/bin/sh"]}}"#).unwrap();
        assert_eq!(table.find("nginx:1").unwrap().entrypoint, ["/bin/sh"]);
        std::fs::write(
            &file,
            r#"{"a/broker@sha256:00": {"entrypoint": ["/old"]}, "a/broker": {"entrypoint": ["/new"]}}"#,
        )
        .unwrap();
        assert_eq!(table.find("a/broker@sha256:00").unwrap().entrypoint, ["/old"]);
        assert_eq!(table.find("a/broker@sha256:01").unwrap().entrypoint, ["/new"]);
        std::fs::write(&file, "{").unwrap();
        assert!(matches!(table.find("nginx:1"), Err(ImageError::Additions(..))));
    }
}
