//! What the real `opm` and `operator-sdk` say about bundles and catalog, on machines that have them: on PATH, or named by
//! MCPGW_OPM and MCPGW_OPERATOR_SDK. Nothing is held by them alone: the linter has the same rules (olm.md 7).

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use mcp_gateway_ship::helm::root;

use crate::cluster::note;

/// The bundles of the catalog: the released ones and that of this tree.
fn bundles() -> Vec<String> {
    let released = root().join("bundle/released").read_dir().unwrap();
    let mut folders: Vec<String> = released
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| format!("bundle/released/{}", path.file_name().unwrap().to_string_lossy()))
        .collect();
    folders.push("bundle".to_owned());
    folders
}

/// The program that `variable` names, or `name` on PATH. Says so when there is none.
fn found(variable: &str, name: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    let program = named.or(on_path);
    if program.is_none() {
        note(&format!(
            "SKIPPED: no {name} on PATH, and {variable} does not name one"
        ));
    }
    program
}

fn accepts(program: &Path, words: &[&str]) {
    let output = Command::new(program)
        .current_dir(root())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {}: {}{}",
        program.display(),
        words.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn opm_takes_the_catalog_and_every_bundle_where_it_is_found() {
    let Some(opm) = found("MCPGW_OPM", "opm") else {
        return;
    };
    accepts(&opm, &["validate", "catalog"]);
    for bundle in bundles() {
        accepts(&opm, &["render", &bundle]);
    }
}

#[test]
fn operator_sdk_validates_every_bundle_where_it_is_found() {
    let Some(sdk) = found("MCPGW_OPERATOR_SDK", "operator-sdk") else {
        return;
    };
    for bundle in bundles() {
        let mut words = vec!["bundle", "validate", &bundle, "--image-builder=none"];
        words.extend([
            "--select-optional=suite=operatorframework",
            "--optional-values=k8s-version=1.34",
        ]);
        accepts(&sdk, &words);
    }
}
