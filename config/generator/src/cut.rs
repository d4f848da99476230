//! `--cut`: keeps the bundle of this tree's version as released. From then on its bytes never change: the linter compares
//! them with `bundle/released/SHA256SUMS`.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use mcp_gateway_images::image::digest;

use crate::{inputs::Inputs, tree::Files};

/// Where released bundles are kept, one folder a version.
pub(crate) const FOLDER: &str = "bundle/released";
/// File of their checksums, in the format of `sha256sum`.
pub(crate) const SUMS: &str = "bundle/released/SHA256SUMS";

pub(crate) fn cut(root: &Path, inputs: &Inputs, generated: &Files) -> anyhow::Result<()> {
    let folder = PathBuf::from(FOLDER).join(inputs.version.to_string());
    if root.join(&folder).exists() {
        bail!(
            "{} is released already: a version is never reused",
            inputs.version
        );
    }
    let built = inputs
        .digests
        .values()
        .all(|digest| digest.bytes().any(|byte| (b'1'..=b'9').contains(&byte)));
    ensure!(
        built,
        "config/manifests/images.yaml holds no digests yet: run `make images`"
    );
    let mut sums = fs::read_to_string(root.join(SUMS)).unwrap_or_default();
    for (path, text) in generated {
        let Ok(inside) = path.strip_prefix("bundle") else {
            continue;
        };
        if inside.components().count() < 2 {
            continue;
        }
        let kept = folder.join(inside);
        let target = root.join(&kept);
        fs::create_dir_all(target.parent().context("a file in a folder")?)?;
        fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
        let name = kept.strip_prefix(FOLDER).context("below the folder")?;
        writeln!(
            sums,
            "{}  {}",
            digest(text.as_bytes()).trim_start_matches("sha256:"),
            name.display()
        )?;
    }
    fs::write(root.join(SUMS), sums).context("writing the checksums")
}
