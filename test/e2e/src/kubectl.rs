//! kubectl, as a user types it. Everything that it prints on failure is in the error.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Runs `kubectl` with the words of `line` and returns what it printed.
///
/// # Errors
/// When kubectl ends with another code than 0; the error holds what it printed.
pub fn kubectl(line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    text(&run(&words, "")?, line)
}

/// `kubectl get … -o json`.
///
/// # Errors
/// As [`kubectl`].
pub fn get(line: &str) -> anyhow::Result<Value> {
    let words: Vec<&str> = ["get"]
        .into_iter()
        .chain(line.split_whitespace())
        .chain(["-o", "json"])
        .collect();
    serde_json::from_str(&text(&run(&words, "")?, line)?).context("kubectl get printed no JSON")
}

/// `kubectl apply -f -` with this manifest.
///
/// # Errors
/// As [`kubectl`].
pub fn apply(manifest: &str) -> anyhow::Result<String> {
    text(&run(&["apply", "-f", "-"], manifest)?, "apply")
}

/// `kubectl delete … --wait=true`, fine when it is gone already.
///
/// # Errors
/// As [`kubectl`].
pub fn delete(line: &str) -> anyhow::Result<String> {
    kubectl(&format!(
        "delete --ignore-not-found --wait=true --timeout=60s {line}"
    ))
}

/// Creates this manifest and expects a refusal; returns its text.
///
/// # Errors
/// When the API server accepts it.
pub fn refused(manifest: &str) -> anyhow::Result<String> {
    let output = run(&["create", "-f", "-"], manifest)?;
    ensure!(
        !output.status.success(),
        "accepted although it should be refused: {manifest}"
    );
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What became of a write, as a user sees it.
#[derive(Clone, Debug)]
pub struct Written {
    /// The API server took it.
    pub accepted: bool,
    /// Warnings, without `Warning: `.
    pub warnings: Vec<String>,
    /// Everything else on stderr.
    pub error: String,
}

/// `kubectl create` or `replace` of one manifest as a server-side dry run.
///
/// # Errors
/// When kubectl cannot be run.
pub fn write_dry(verb: &str, manifest: &str) -> anyhow::Result<Written> {
    let output = run(&[verb, "--dry-run=server", "-f", "-"], manifest)?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    let others: Vec<&str> = printed.lines().filter(|line| warning(line).is_none()).collect();
    Ok(Written {
        accepted: output.status.success(),
        warnings: printed.lines().filter_map(warning).collect(),
        error: others.join("\n"),
    })
}

fn warning(line: &str) -> Option<String> {
    line.strip_prefix("Warning: ").map(str::to_owned)
}

/// `kubectl delete … --dry-run=server`; its warnings.
///
/// # Errors
/// When kubectl cannot be run, or the deletion is refused.
pub fn delete_dry(line: &str) -> anyhow::Result<Vec<String>> {
    let words: Vec<&str> = ["delete", "--dry-run=server"]
        .into_iter()
        .chain(line.split_whitespace())
        .collect();
    let output = run(&words, "")?;
    text(&output, line)?;
    let printed = String::from_utf8_lossy(&output.stderr);
    Ok(printed.lines().filter_map(warning).collect())
}

/// Runs `kubectl` with these words and this input, and returns what it printed.
///
/// # Errors
/// When kubectl ends with another code than 0; the error holds what it printed.
pub fn kubectl_with(words: &[&str], input: &str) -> anyhow::Result<String> {
    text(&run(words, input)?, &words.join(" "))
}

/// Runs kubectl with these words, giving it `input`.
fn run(words: &[&str], input: &str) -> anyhow::Result<Output> {
    let mut child = Command::new("kubectl")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl is not on PATH: run the suite by `make e2e`")?;
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

fn text(output: &Output, what: &str) -> anyhow::Result<String> {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    bail!(
        "kubectl {what}: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Creates this manifest as a server-side dry run.
///
/// # Errors
/// As [`kubectl`].
pub fn dry_run(manifest: &str) -> anyhow::Result<String> {
    text(
        &run(&["create", "--dry-run=server", "-f", "-"], manifest)?,
        "create --dry-run=server",
    )
}
