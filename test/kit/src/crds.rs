//! The CRDs of Gateway API and Istio, taken from the Go module cache and kept as JSON lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::binaries::{GATEWAY_API, ISTIO, Module};
use crate::cache::{Cache, CacheError, Item, io};
use crate::command::output_of;

const FILE: &str = "crds.json";

struct Source {
    name: &'static str,
    version: &'static str,
    module: Module,
    module_path: &'static str,
    manifests: &'static str,
}

const GATEWAY: Source = Source {
    name: "gateway-api-crds",
    version: "1.6.0",
    module: GATEWAY_API,
    module_path: "sigs.k8s.io/gateway-api",
    manifests: "config/crd/standard",
};

const ISTIO_CRDS: Source = Source {
    name: "istio-crds",
    version: "1.31.0",
    module: ISTIO,
    module_path: "istio.io/istio",
    manifests: "manifests/charts/base/files/crd-all.gen.yaml",
};

/// The cache items of this module.
pub(crate) fn items() -> [Item; 2] {
    [item(&GATEWAY), item(&ISTIO_CRDS)]
}

/// Fetches both lists and returns their files: Gateway API, Istio.
pub(crate) fn install(cache: &Cache) -> Result<[PathBuf; 2], CacheError> {
    let fetch = |source: &Source| cache.install(&item(source), |dir| make(source, dir));
    Ok([fetch(&GATEWAY)?.join(FILE), fetch(&ISTIO_CRDS)?.join(FILE)])
}

fn item(source: &Source) -> Item {
    Item {
        name: source.name,
        version: source.version,
        what: format!(
            "Fetching {} {} (Go module {})",
            source.name, source.version, source.module_path
        ),
        inputs: source.module.inputs(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

fn make(source: &Source, dir: &Path) -> Result<(), CacheError> {
    let module = dir.join("module");
    source.module.write(&module)?;
    let mut go = Command::new("go");
    let json = output_of(
        go.current_dir(&module)
            .args(["mod", "download", "-json", source.module_path]),
    )?;
    let downloaded: Downloaded = serde_json::from_str(&json)
        .map_err(|error| CacheError::Unexpected(format!("go mod download -json: {error}")))?;
    let list = documents(&downloaded.dir.join(source.manifests))?;
    fs::write(dir.join(FILE), Value::Array(list).to_string()).map_err(io(dir))
}

/// The CRDs of a YAML file, or of every YAML file of a folder, in the order of the files' names.
fn documents(path: &Path) -> Result<Vec<Value>, CacheError> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(io(path))?;
        files = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
    }
    let mut list = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(io(&file))?;
        let parsed = crate::apply::parse_yaml(&text)
            .map_err(|error| CacheError::Unexpected(format!("{}: {error}", file.display())))?;
        list.extend(
            parsed
                .into_iter()
                .filter(|object| object["kind"] == "CustomResourceDefinition"),
        );
    }
    if list.is_empty() {
        return Err(CacheError::Unexpected(format!(
            "no CustomResourceDefinition in {}",
            path.display()
        )));
    }
    Ok(list)
}
