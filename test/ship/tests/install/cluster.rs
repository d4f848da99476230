//! What the tests share: the image of the hook, questions about pods, an empty cluster at the end.

use std::{env, path::PathBuf};

use mcp_gateway_e2e::{delete, get, kubectl};
use mcp_gateway_kit::{Image, Kit};

/// Prepares the sandbox: a crypto provider, and the image of the command line for the chart's hook.
pub(crate) fn prepare() -> anyhow::Result<()> {
    // Two providers may be compiled in; whoever comes first has chosen this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let image = Image {
        entrypoint: vec![program().to_string_lossy().into_owned()],
        ..Image::default()
    };
    Ok(Kit::from_env()?.add_image("ghcr.io/mcp-gateway-operator/cli", &image)?)
}

/// Our command line.
pub(crate) fn program() -> PathBuf {
    let programs = env::var_os("MCPGW_BIN_DIR").map(PathBuf::from);
    programs
        .unwrap_or_else(|| {
            env::current_exe()
                .unwrap()
                .parent()
                .unwrap()
                .parent()
                .unwrap()
                .to_owned()
        })
        .join("mcpgw")
}

/// Uids of the broker's pods in `namespace`, sorted.
pub(crate) fn brokers(namespace: &str) -> anyhow::Result<Vec<String>> {
    let pods = get(&format!(
        "pod -n {namespace} -l app.kubernetes.io/name=mcp-gateway"
    ))?;
    let mut uids: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned())
        .collect();
    uids.sort();
    Ok(uids)
}

/// Deletes a site, as a user would who never heard of finalizers, and then our CRDs.
pub(crate) fn clear(sites: &[&str]) -> anyhow::Result<()> {
    for site in sites {
        kubectl(&format!(
            "delete mcpge,mcpsr,mcpvs,mcpap --all -n {site} --timeout=30s"
        ))?;
        delete(&format!("namespace {site} {site}-servers {site}-gw"))?;
    }
    delete("namespace mcp-system")?;
    for plural in [
        "mcpgatewayextensions",
        "mcpserverregistrations",
        "mcpvirtualservers",
        "mcpauthpolicies",
    ] {
        delete(&format!("crd {plural}.mcp.kuadrant.io"))?;
    }
    Ok(())
}

/// Says something that the reader of a run should see.
#[expect(clippy::print_stderr, reason = "a test that skips or measures says so")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
