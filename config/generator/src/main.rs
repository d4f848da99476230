//! `make generate`: writes every manifest that has a source in code (CRDs, RBAC, Deployments, webhook configurations,
//! kustomizations) and the API reference. `--check` writes nothing and fails when a file differs.

mod bundle;
mod catalog;
mod chart;
mod crd;
mod cut;
mod inputs;
mod kustomize;
mod manager;
mod olm;
mod rbac;
mod reference;
mod release;
mod static_envoy;
mod tree;
mod webhook;

use std::path::{Path, PathBuf};

use clap::Parser;

/// Writes the generated files of the repository.
#[derive(Parser)]
struct Arguments {
    /// Root of the repository.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Only compare; exit code 1 when something differs.
    #[arg(long)]
    check: bool,
    /// Fail unless this tree is that version.
    #[arg(long)]
    expect_version: Option<String>,
    /// Keep the bundle of this version as released (bundle/released); done once, when a release is cut.
    #[arg(long, conflicts_with = "check")]
    cut: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(wanted) = &arguments.expect_version {
        anyhow::ensure!(
            wanted == manager::VERSION,
            "this tree is {}: set [workspace.package] version and config/manifests/release.yaml to {wanted}",
            manager::VERSION
        );
    }
    let files = everything(&arguments.root)?;
    if arguments.check {
        return tree::check(&arguments.root, &files);
    }
    tree::write(&arguments.root, &files)?;
    if arguments.cut {
        cut::cut(&arguments.root, &inputs::Inputs::read(&arguments.root)?, &files)?;
    }
    Ok(())
}

/// Every generated file, by path in the repository.
fn everything(root: &Path) -> anyhow::Result<tree::Files> {
    let mut files = tree::Files::new();
    files.extend(crd::files()?);
    files.extend(rbac::files()?);
    files.extend(manager::files()?);
    files.extend(webhook::files()?);
    files.extend(kustomize::files()?);
    files.extend(static_envoy::files()?);
    files.extend(chart::files()?);
    files.extend(olm::files()?);
    let inputs = inputs::Inputs::read(root)?;
    let bundle = bundle::files(&inputs)?;
    files.extend(catalog::files(&inputs, &bundle)?);
    files.extend(bundle);
    files.extend(reference::files()?);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn the_generated_files_in_the_repository_are_current() {
        tree::check(&root(), &everything(&root()).expect("generates")).expect("run `make generate`");
    }

    #[test]
    fn generating_twice_gives_the_same_bytes() {
        assert_eq!(
            everything(&root()).expect("generates"),
            everything(&root()).expect("generates")
        );
    }
}
