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
    let nothing = format!("sha256:{}", "0".repeat(64));
    let built = inputs.digests.values().all(|digest| *digest != nothing);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_cut_once_and_not_before_its_images_were_built() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut inputs = Inputs::read(&repository).expect("inputs");
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("bundle")).expect("a folder");
        let files = Files::from([
            ("bundle/manifests/a.yaml".into(), "a".to_owned()),
            ("bundle/bundle.Dockerfile".into(), "FROM scratch".to_owned()),
            ("config/crd/b.yaml".into(), "b".to_owned()),
        ]);
        for digest in inputs.digests.values_mut() {
            *digest = format!("sha256:{}", "0".repeat(64));
        }
        assert!(cut(root.path(), &inputs, &files).is_err(), "nothing was built");
        for digest in inputs.digests.values_mut() {
            *digest = format!("sha256:{}", "1".repeat(64));
        }
        cut(root.path(), &inputs, &files).expect("cuts");
        let sums = fs::read_to_string(root.path().join(SUMS)).expect("sums");
        let name = format!("  {}/manifests/a.yaml\n", inputs.version);
        assert!(sums.lines().count() == 1 && sums.ends_with(&name), "{sums}");
        assert!(cut(root.path(), &inputs, &files).is_err(), "a second time");
    }
}
