//! The documentation holds: links lead somewhere, the book lists every page, made pages are fresh, YAML can be read,
//! dashboards and alerts ask for metrics that exist, and each alert has its runbook.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this whole crate is tests: a panic is how they fail"
)]

mod links;
mod observability;
mod pages;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Markdown files that people read: those in the root, below `docs`, and the README of each folder.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let foreign = name.starts_with('.')
            || ["target", "node_modules", "dist", "book", "fuzz"].contains(&name.as_str());
        if path.is_dir() && !foreign {
            collect(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}
