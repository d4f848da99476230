//! Programs of other projects, from the cache of the kit.

use std::path::{Path, PathBuf};

/// The program `name` of a cache item: what `variable` says, or what `kit build` put into the cache.
pub fn cached(variable: &str, item: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let cache = std::env::var_os("MCPGW_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let home = std::env::var_os("HOME").expect("HOME is not set");
            Path::new(&home).join(".cache/mcp-gateway-operator")
        });
    let prefix = format!("{item}-");
    let folders = folders_of(&cache).into_iter().filter(|folder| {
        folder
            .file_name()
            .is_some_and(|folder| folder.to_string_lossy().starts_with(&prefix))
    });
    folders
        .filter_map(|folder| find(&folder, name, 3))
        .next()
        .unwrap_or_else(|| {
            panic!(
                "no {name} under {}: run `cargo run -p mcp-gateway-kit -- build {item}`, or set {variable}",
                cache.display()
            )
        })
}

fn folders_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect()
}

fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let file = folder.join(name);
    if file.is_file() {
        return Some(file);
    }
    let nested = folders_of(folder).into_iter().filter(|_| depth > 0);
    nested.filter_map(|folder| find(&folder, name, depth - 1)).next()
}
