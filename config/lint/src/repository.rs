//! The rules over the repository: this tree's bundle, every released one, the catalog, and how they agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use mcp_gateway_images::image::digest;
use semver::Version;
use serde_json::Value;

use crate::{
    Finding,
    bundle::{self, Bundle, Files},
    catalog, compatibility,
    finding::Report,
};

/// What is linted, read from the repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// Files of `bundle/`, without the released ones.
    pub candidate: Files,
    /// Files of `bundle/released/<version>/`.
    pub released: BTreeMap<Version, Files>,
    /// `bundle/released/SHA256SUMS`.
    pub sums: String,
    /// `catalog/mcp-gateway/catalog.yaml`.
    pub catalog: String,
    /// `config/rbac/*.yaml`.
    pub permissions: Files,
    /// Time of the release, seconds since 1970 (`config/manifests/release.yaml`).
    pub epoch: u64,
}

const CATALOG: &str = "catalog/mcp-gateway/catalog.yaml";
const RELEASED: &str = "bundle/released";

impl Repository {
    /// Reads it.
    ///
    /// # Errors
    /// When a file cannot be read or a folder of `bundle/released` is not named by a version.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut candidate = tree(&root.join("bundle"))?;
        candidate.retain(|name, _| !name.starts_with("released/"));
        let mut released = BTreeMap::new();
        for entry in fs::read_dir(root.join(RELEASED))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = Version::parse(&name)
                .with_context(|| format!("{RELEASED}/{name} is not named by a version"))?;
            released.insert(version, tree(&entry.path())?);
        }
        let release = read(&root.join("config/manifests/release.yaml"))?;
        let release: BTreeMap<String, Value> =
            serde_saphyr::from_str(&release).context("config/manifests/release.yaml")?;
        Ok(Self {
            candidate,
            released,
            sums: fs::read_to_string(root.join(RELEASED).join("SHA256SUMS")).unwrap_or_default(),
            catalog: read(&root.join(CATALOG))?,
            permissions: tree(&root.join("config/rbac"))?,
            epoch: release
                .get("epoch")
                .and_then(Value::as_u64)
                .context("release.yaml: epoch")?,
        })
    }

    /// Every rule.
    #[must_use]
    pub fn lint(&self) -> Vec<Finding> {
        let (candidate, mut findings) = bundle::read_and_lint(&self.candidate);
        let mut report = Report::default();
        let created = mcp_gateway_images::contents::epoch(candidate.annotation("createdAt"));
        let place = (candidate.csv_file.as_str(), "createdAt");
        report.require(
            created == Some(self.epoch),
            "created-at",
            place,
            "differs from config/manifests/release.yaml",
        );
        self.same_permissions(&candidate, &mut report);
        self.released_bytes(&candidate, &mut report);
        findings.extend(report.finish());
        for files in self.released.values() {
            let old = Bundle::read(files);
            findings.extend(selectors(&old, &candidate));
            findings.extend(compatibility::lint(&old, &candidate));
        }
        let mut bundles = self.released.clone();
        if let Some(version) = candidate.version() {
            bundles.insert(version, self.candidate.clone());
        }
        findings.extend(catalog::lint(CATALOG, &self.catalog, &bundles));
        findings
    }

    /// The rules in the CSV are those of the roles that kustomize applies.
    fn same_permissions(&self, candidate: &Bundle, report: &mut Report) {
        let roles: Vec<Value> = self
            .permissions
            .values()
            .flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap_or_default())
            .collect();
        for (list, kind) in [("clusterPermissions", "ClusterRole"), ("permissions", "Role")] {
            for entry in candidate.list(&format!("/spec/install/spec/{list}")) {
                let account = &entry["serviceAccountName"];
                let role = roles
                    .iter()
                    .find(|role| role["kind"] == kind && role.pointer("/metadata/name") == Some(account));
                let same = role.is_some_and(|role| role["rules"] == entry["rules"]);
                let place = (candidate.csv_file.as_str(), list);
                report.require(
                    same,
                    "same-permissions",
                    place,
                    format!("of {account} differ from config/rbac"),
                );
            }
        }
    }

    /// Released files are those that the sums name, and this tree's bundle is the released one if its version is.
    fn released_bytes(&self, candidate: &Bundle, report: &mut Report) {
        let sums: BTreeSet<String> = self.sums.lines().map(str::to_owned).collect();
        let present: BTreeSet<String> = self
            .released
            .iter()
            .flat_map(|(version, files)| files.iter().map(move |(name, text)| (version, name, text)))
            .map(|(version, name, text)| {
                format!(
                    "{}  {version}/{name}",
                    digest(text.as_bytes()).trim_start_matches("sha256:")
                )
            })
            .collect();
        for line in sums.symmetric_difference(&present) {
            let name = line.split_once("  ").map_or("", |(_, name)| name);
            report.add(
                "released-bytes",
                (RELEASED, name),
                "changed, added or removed since it was released",
            );
        }
        let same = candidate
            .version()
            .and_then(|version| self.released.get(&version));
        let inside = self.candidate.iter().filter(|(name, _)| name.contains('/'));
        if let Some(released) = same {
            report.require(
                inside.eq(released.iter()),
                "released-bytes",
                ("bundle/", ""),
                "differs from the released bundle of this version; raise the version",
            );
        }
    }
}

/// Selectors of Deployments are immutable, and OLM updates a Deployment of the same name in place.
fn selectors(old: &Bundle, new: &Bundle) -> Vec<Finding> {
    let mut report = Report::default();
    for (name, before) in old.deployments() {
        let after = new.deployments().find(|(other, _)| *other == name);
        let same = after.is_none_or(|(_, after)| after["selector"] == before["selector"]);
        report.require(
            same,
            "selectors",
            (&new.csv_file, name),
            "the selector differs from a released bundle; it is immutable",
        );
    }
    report.finish()
}

/// The text files below `root`, by path relative to it.
fn tree(root: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
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

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
