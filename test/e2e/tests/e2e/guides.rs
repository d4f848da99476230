//! Guides, followed literally: each fenced block whose info string ends with `run` is run as it stands, in the order of the
//! page. YAML is applied, anything else goes to a shell.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, apply, delete, publish_host};
use tokio::sync::Mutex;

/// The host of the guides; DNS leads it to their Gateway.
const HOST: &str = "mcp.example.com";

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

/// The root of the repository, where the guides' commands are typed.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The reader's home, with a folder for programs that is on the path.
struct Reader {
    home: PathBuf,
}

impl Reader {
    fn new(name: &str) -> anyhow::Result<Self> {
        let kit = std::env::var("MCPGW_KIT_DIR").context("not in the kit's sandbox: run this by make e2e")?;
        let home = Path::new(&kit).join("home").join(name);
        std::fs::create_dir_all(home.join(".local/bin"))?;
        Ok(Self { home })
    }

    /// Runs lines in a shell that ends with the first failure; what it printed.
    fn shell(&self, lines: &str) -> anyhow::Result<String> {
        let programs =
            std::env::var("MCPGW_BIN_DIR").context("MCPGW_BIN_DIR is not set: run this by make e2e")?;
        let path = format!(
            "{programs}:{}:{}",
            self.home.join(".local/bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(repository())
            .env("PATH", path)
            .env("HOME", &self.home)
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{lines}\n{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }

    /// Does what a guide of `docs/guides` says; what the last block printed.
    async fn follow(&self, guide: &str) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(repository().join("docs/guides").join(guide))?;
        let mut printed = String::new();
        let blocks = blocks(&text);
        ensure!(!blocks.is_empty(), "{guide}: no block is marked");
        for block in blocks {
            if matches!(&block, Block::Shell(lines) if lines.contains(HOST)) {
                publish_host(HOST, "mcp-gateway -n gateway-system").await?;
            }
            let done = match block {
                Block::Apply(manifest) => apply(&manifest),
                Block::Shell(lines) => self.shell(&lines),
            };
            printed = done.with_context(|| guide.to_owned())?;
        }
        Ok(printed)
    }
}

/// Held by the test that uses the namespaces of guides and samples.
static NAMES: Mutex<()> = Mutex::const_new(());

/// Leaves nothing of the guides to other tests: their Gateway takes every host of `*.mcp.local`.
fn clean_up() -> anyhow::Result<()> {
    delete("namespace team-a mcp-servers gateway-system").map(drop)
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
async fn guides_hold_as_they_stand_one_after_the_other() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let _names = NAMES.lock().await;
    let reader = Reader::new("guides")?;
    let printed = reader.follow("install.md").await?;
    ensure!(printed.contains("protocolVersion"), "{printed}");
    let printed = reader.follow("first-server.md").await?;
    ensure!(
        printed.contains("weather_add") && printed.trim_end().ends_with("\n42"),
        "{printed}"
    );
    let printed = reader.follow("cli.md").await?;
    ensure!(printed.contains("team-a/mcp-gateway"), "{printed}");
    let printed = reader.follow("oauth.md").await?;
    ensure!(
        printed.contains("https://idp.example.com/realms/mcp"),
        "{printed}"
    );
    reader.follow("direct.md").await?;
    reader.follow("external-servers.md").await?;
    reader.follow("observability.md").await?;
    clean_up()
}

#[tokio::test]
async fn the_example_of_access_control_lets_in_whom_it_names() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let _names = NAMES.lock().await;
    let printed = Reader::new("access")?.shell("test/demo/oauth.sh kit")?;
    ensure!(
        printed.contains("https://sso.example.com/realms/mcp") && printed.contains("\n42\n"),
        "{printed}"
    );
    clean_up()
}
