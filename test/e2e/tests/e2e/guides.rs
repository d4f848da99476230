//! Guides, followed literally: each fenced block whose info string ends with `run` is run as it stands, in the order of the
//! page. YAML is applied, anything else goes to a shell.

use std::process::Command;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, apply, delete};

/// A block that is to be run.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Apply(String),
    Shell(String),
}

/// The blocks of a guide that are marked.
fn blocks(guide: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line
            .strip_prefix("```")
            .and_then(|info| info.strip_suffix(" run"))
        else {
            continue;
        };
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text = text.join("\n");
        found.push(if language == "yaml" {
            Block::Apply(text)
        } else {
            Block::Shell(text)
        });
    }
    found
}

/// Runs lines in a shell that ends with the first failure; what it printed.
fn shell(lines: &str) -> anyhow::Result<String> {
    let programs =
        std::env::var("MCPGW_BIN_DIR").context("MCPGW_BIN_DIR is not set: run this by make e2e")?;
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euc", lines])
        .env("PATH", path)
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{lines}\n{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// What the last block printed.
fn follow(guide: &str) -> anyhow::Result<String> {
    let mut printed = String::new();
    let blocks = blocks(guide);
    ensure!(!blocks.is_empty(), "no block is marked");
    for block in blocks {
        match block {
            Block::Apply(manifest) => drop(apply(&manifest)?),
            Block::Shell(lines) => printed = shell(&lines)?,
        }
    }
    Ok(printed)
}

#[test]
fn only_marked_blocks_are_run() {
    let guide =
        "# x\n```\nnot me\n```\n```yaml run\na: 1\nb: 2\n```\n```yaml\nnor me\n```\n```sh run\nls\n```\n";
    assert_eq!(
        blocks(guide),
        [
            Block::Apply("a: 1\nb: 2".to_owned()),
            Block::Shell("ls".to_owned())
        ]
    );
}

#[tokio::test]
async fn the_guide_to_the_first_server_ends_with_a_call() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let printed = follow(include_str!("../../../../docs/guides/first-server.md"))?;
    ensure!(
        printed.contains("weather_add") && printed.trim_end().ends_with("\n42"),
        "{printed}"
    );
    // Its Gateway takes every host of `*.mcp.local`; nothing of it may be left for other tests.
    delete("namespace team-a mcp-servers gateway-system").map(drop)
}
