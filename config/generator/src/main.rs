//! `make generate`: writes every manifest that has a source in code (CRDs, RBAC, Deployments, webhook configurations,
//! kustomizations) and the API reference. `--check` writes nothing and fails when a file differs.

mod chart;
mod crd;
mod kustomize;
mod manager;
mod rbac;
mod reference;
mod release;
mod tree;
mod webhook;

use std::path::PathBuf;

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
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let files = everything()?;
    if arguments.check {
        tree::check(&arguments.root, &files)
    } else {
        tree::write(&arguments.root, &files)
    }
}

/// Every generated file, by path in the repository.
fn everything() -> anyhow::Result<tree::Files> {
    let mut files = tree::Files::new();
    files.extend(crd::files()?);
    files.extend(rbac::files()?);
    files.extend(manager::files()?);
    files.extend(webhook::files()?);
    files.extend(kustomize::files()?);
    files.extend(chart::files()?);
    files.extend(reference::files()?);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_in_the_repository_are_current() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        tree::check(&root, &everything().expect("generates")).expect("run `make generate`");
    }

    #[test]
    fn generating_twice_gives_the_same_bytes() {
        assert_eq!(everything().expect("generates"), everything().expect("generates"));
    }
}
