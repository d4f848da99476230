//! `config/crd`: the CRDs, usable alone with `kubectl apply -k`.

use std::path::PathBuf;

use mcp_gateway_api::crds;

use crate::{
    kustomize::kustomization,
    tree::{Files, yaml},
};

pub(crate) fn files() -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut names = Vec::new();
    for crd in crds::all()? {
        files.insert(
            PathBuf::from("config/crd").join(&crd.file_name),
            yaml(&[crd.manifest])?,
        );
        names.push(crd.file_name);
    }
    files.insert(
        "config/crd/kustomization.yaml".into(),
        kustomization(None, &names)?,
    );
    Ok(files)
}
