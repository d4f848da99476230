//! Guides, followed literally, block by block: manifests are applied, lines go to a shell in the root of the repository, and
//! a program that serves stays until the page is done. (`test/docs` says which blocks those are, and holds that every command
//! is in one, or says why not.)

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use mcp_gateway_docs::guide;
pub use mcp_gateway_docs::guide::Block;
use mcp_gateway_kit::eventually;

use crate::{kubectl::apply, site::publish_host};

/// The host of the guides; DNS leads it to their Gateway.
pub const GUIDE_HOST: &str = "mcp.example.com";

/// How long what a page starts may take until it answers.
const STARTED: Duration = Duration::from_secs(30);

/// A program that a page started, with its children.
#[derive(Debug)]
pub struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // A group that is gone needs no end.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.0.id())])
            .status();
        let _ = self.0.wait();
    }
}

/// The root of the repository, where the guides' commands are typed.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The reader of guides: a home, with a folder for programs that is on the path.
#[derive(Clone, Debug)]
pub struct Reader {
    home: PathBuf,
    programs: Vec<PathBuf>,
}

impl Reader {
    /// A reader with a home of this name, who has our programs.
    ///
    /// # Errors
    /// Outside of `make e2e`.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let kit = std::env::var("MCPGW_KIT_DIR").context("not in the kit's sandbox: run this by make e2e")?;
        let ours =
            std::env::var("MCPGW_BIN_DIR").context("MCPGW_BIN_DIR is not set: run this by make e2e")?;
        let home = Path::new(&kit).join("home").join(name);
        let own = home.join(".local/bin");
        std::fs::create_dir_all(&own)?;
        let programs = vec![ours.into(), own];
        Ok(Self { home, programs })
    }

    /// Who has the programs of one more folder.
    #[must_use]
    pub fn with_programs(mut self, folder: PathBuf) -> Self {
        self.programs.push(folder);
        self
    }

    /// Runs lines in a shell that ends with the first failure; what it printed.
    ///
    /// # Errors
    /// When one fails, with what was printed.
    pub fn shell(&self, lines: &str) -> anyhow::Result<String> {
        let output = self.command(lines)?.output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{lines}\n{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }

    fn command(&self, lines: &str) -> anyhow::Result<Command> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = self.programs.iter().cloned().chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(repository())
            .env("PATH", std::env::join_paths(folders)?)
            .env("HOME", &self.home);
        Ok(command)
    }

    /// Starts what stays, in a process group of its own; what it says is in `served.log` of the home.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(&self, lines: &str) -> anyhow::Result<Served> {
        let mut command = self.command(lines)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.join("served.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(Served(command.spawn()?))
    }

    /// The marked blocks of a page, named from the root of the repository.
    ///
    /// # Errors
    /// When it cannot be read, or none is marked.
    pub fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
        let text = std::fs::read_to_string(repository().join(page)).with_context(|| page.to_owned())?;
        let blocks = guide::blocks(&text).with_context(|| page.to_owned())?;
        ensure!(!blocks.is_empty(), "{page}: no block is marked");
        Ok(blocks)
    }

    /// Does what one block says; what it printed.
    ///
    /// # Errors
    /// When that fails.
    pub fn run(&self, block: &Block) -> anyhow::Result<String> {
        match block {
            Block::Apply(manifest) => apply(manifest),
            Block::Shell(lines) => self.shell(lines),
            Block::Serve(lines) => anyhow::bail!("this does not end: {lines}"),
        }
    }

    /// Does what a page says, block by block; what the last one printed.
    ///
    /// # Errors
    /// When one fails.
    pub async fn follow(&self, page: &str) -> anyhow::Result<String> {
        let (mut printed, mut served) = (String::new(), Vec::new());
        for block in Self::blocks(page)? {
            if let Block::Serve(lines) = &block {
                served.push(self.serve(lines)?);
                continue;
            }
            if matches!(&block, Block::Shell(lines) if lines.contains(GUIDE_HOST)) {
                publish_host(GUIDE_HOST, "mcp-gateway -n gateway-system").await?;
            }
            printed = if served.is_empty() {
                self.run(&block).with_context(|| page.to_owned())?
            } else {
                let answered = async || self.run(&block).map_err(|error| format!("{error:#}"));
                eventually(STARTED, page, answered).await?
            };
        }
        Ok(printed)
    }
}
