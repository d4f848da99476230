//! What the tests share: the image of the hook, questions about pods, an empty cluster at the end.

use std::{collections::BTreeSet, env, path::PathBuf, sync::OnceLock};

use anyhow::ensure;
use mcp_gateway_e2e::{delete, get, kubectl, kubectl_with};
use mcp_gateway_kit::{AuditMark, Image, Kit, Request};

/// Namespaces of the cluster before the first test.
static EMPTY: OnceLock<BTreeSet<String>> = OnceLock::new();

/// Prepares the sandbox: nothing of a test that failed, a crypto provider, and the image of the command line for the
/// chart's hook.
pub(crate) fn prepare() -> anyhow::Result<()> {
    clear_leftovers()?;
    // Two providers may be compiled in; whoever comes first has chosen this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let image = Image {
        entrypoint: vec![program().to_string_lossy().into_owned()],
        ..Image::default()
    };
    Ok(Kit::from_env()?.add_image("ghcr.io/mcp-gateway-operator/cli", &image)?)
}

/// Fails when a role did not allow what a pod of ours asked for since `mark`. For a time in which nothing is taken away: of
/// an uninstall, roles go before the pods have ended.
pub(crate) fn nothing_forbidden(mark: AuditMark) -> anyhow::Result<()> {
    let ours = ["controller", "webhook"].map(|account| format!(":mcp-gateway-{account}"));
    let ours =
        |user: &str| ours.iter().any(|account| user.ends_with(account)) || user.ends_with(":mcp-gateway");
    let requests = Kit::from_env()?.requests_since(mark)?;
    let requests: Vec<&Request> = requests.iter().filter(|request| ours(&request.user)).collect();
    ensure!(requests.len() > 20, "only {} requests of ours", requests.len());
    let forbidden: BTreeSet<String> = requests
        .iter()
        .filter(|request| request.forbidden)
        .map(ToString::to_string)
        .collect();
    ensure!(forbidden.is_empty(), "forbidden: {forbidden:#?}");
    Ok(())
}

/// Names of all objects of `kinds`, as `<kind>/<name>`.
fn names_of(kinds: &str) -> anyhow::Result<BTreeSet<String>> {
    let names = kubectl(&format!("get {kinds} -o name"))?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Removes what a test left that failed before it came to its end, so that the next one fails only for reasons of its own.
fn clear_leftovers() -> anyhow::Result<()> {
    let namespaces = names_of("namespaces")?;
    let Some(empty) = EMPTY.get() else {
        EMPTY.get_or_init(|| namespaces);
        return Ok(());
    };
    let ours = |kinds: &str| -> anyhow::Result<Vec<String>> {
        Ok(names_of(kinds)?
            .into_iter()
            .filter(|name| name.contains("mcp"))
            .collect())
    };
    // First what refuses writes and holds deletions up.
    let admission = ours("validatingwebhookconfigurations,mutatingwebhookconfigurations")?;
    remove(&admission)?;
    // And whoever would take the finalizers again.
    delete("deployment mcp-gateway-controller -n mcp-system")?;
    let operator = "app.kubernetes.io/name=mcp-gateway-operator";
    kubectl(&format!(
        "wait --for=delete pod -l {operator} -n mcp-system --timeout=60s"
    ))?;
    if kubectl("get crd mcpgatewayextensions.mcp.kuadrant.io").is_ok() {
        let held = "{range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
        let held = kubectl_with(&["get", "mcpge", "-A", "-o", &format!("jsonpath={held}")], "")?;
        for (namespace, name) in held.lines().filter_map(|line| line.split_once(' ')) {
            let none = "{\"metadata\":{\"finalizers\":null}}";
            let words = [
                "patch",
                "mcpge",
                name,
                "-n",
                namespace,
                "--type=merge",
                "-p",
                none,
            ];
            kubectl_with(&words, "")?;
        }
    }
    let left: Vec<String> = namespaces.difference(empty).cloned().collect();
    remove(&left)?;
    remove(&ours(
        "clusterroles,clusterrolebindings,customresourcedefinitions",
    )?)
}

fn remove(names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    note(&format!("left by a test before: {}", names.join(" ")));
    delete(&names.join(" ")).map(drop)
}

/// A namespace of a site: the team's, that of the Gateway, that of the servers.
fn belongs(namespace: &str, site: &str) -> bool {
    namespace
        .strip_prefix(site)
        .is_some_and(|rest| ["", "-gw", "-servers"].contains(&rest))
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

/// Deletes sites, as a user would who never heard of finalizers, then the namespaces of races, and our CRDs.
pub(crate) fn clear(sites: &[&str]) -> anyhow::Result<()> {
    for site in sites {
        kubectl(&format!(
            "delete mcpge,mcpsr,mcpvs,mcpap --all -n {site} --timeout=30s"
        ))?;
    }
    let ours = |name: &&String| {
        name.strip_prefix("namespace/").is_some_and(|name| {
            name == "mcp-system" || name.starts_with("race-") || sites.iter().any(|site| belongs(name, site))
        })
    };
    let namespaces = names_of("namespaces")?;
    let ours: Vec<&str> = namespaces.iter().filter(ours).map(String::as_str).collect();
    if !ours.is_empty() {
        delete(&ours.join(" "))?;
    }
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
