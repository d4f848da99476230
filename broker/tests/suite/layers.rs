//! Who may import whom: the `use crate::…` edges of the sources against the list of README.md.

use std::path::{Path, PathBuf};

/// Lowest first; modules of one row do not import each other.
const LAYERS: [&[&str]; 13] = [
    &["secret"],
    &["protocol"],
    &["options"],
    &["telemetry"],
    &["config"],
    &["auth"],
    &["transport"],
    &["authn", "bridges", "sessions", "upstreams", "kubernetes"],
    &["aggregation"],
    &["decision"],
    &["pipeline"],
    &["router", "front"],
    &["run", "example"],
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

#[test]
fn upper_layers_import_lower_ones_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut edges = 0;
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().with_extension("");
        let module = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .to_owned();
        let Some(own) = rank(&module) else {
            assert!(
                matches!(module.as_str(), "lib" | "main"),
                "{module} is in no layer"
            );
            continue;
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for rest in text.split("crate::").skip(1) {
            let target: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            let Some(other) = rank(&target) else { continue };
            edges += 1;
            assert!(
                target == module || other < own,
                "{} imports {target}",
                file.display()
            );
        }
    }
    assert!(edges > 50, "the edges were not found");
}

#[test]
fn files_keep_their_size() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let production = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap()
            .lines()
            .count();
        assert!(production <= 400, "{}: {production} lines", file.display());
    }
}
