//! The MCP servers that the samples and tests federate: one from npm and one on the Python SDK, fetched before the sandbox
//! closes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, CacheError, Item, io};
use crate::command::{output_of, run_in};

const EVERYTHING: &str = "@modelcontextprotocol/server-everything";
const EVERYTHING_VERSION: &str = "2026.8.31";
const PYTHON_MCP_VERSION: &str = "2.3.0";
const PYTHON_SERVER: &str = include_str!("../servers/weather.py");

/// Where the servers and their interpreters are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Servers {
    /// The Node.js interpreter.
    pub(crate) node: PathBuf,
    /// The start file of npm's `server-everything`.
    pub(crate) everything: PathBuf,
    /// The Python interpreter.
    pub(crate) python: PathBuf,
    /// The directory of Python packages (`PYTHONPATH`) that holds the SDK.
    pub(crate) python_path: PathBuf,
    /// The start file of the server on the Python SDK.
    pub(crate) weather: PathBuf,
}

impl Servers {
    /// How a command in the sandbox finds the interpreters and SDKs, to be clients with them.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let modules = self
            .everything
            .ancestors()
            .find(|dir| dir.ends_with("node_modules"));
        vec![
            ("MCPGW_PYTHON", self.python.clone().into()),
            ("MCPGW_PYTHON_PATH", self.python_path.clone().into()),
            ("MCPGW_NODE", self.node.clone().into()),
            ("MCPGW_NODE_MODULES", modules.unwrap_or(Path::new("")).into()),
        ]
    }
}

/// The cache items of this module.
pub(crate) fn items() -> [Item; 2] {
    [everything(), weather()]
}

/// Fetches both servers.
pub(crate) fn install(cache: &Cache) -> Result<Servers, CacheError> {
    let everything = cache.install(&everything(), |dir| {
        let package = format!("{EVERYTHING}@{EVERYTHING_VERSION}");
        run_in(
            dir,
            "npm",
            &[
                "install",
                "--prefix",
                ".",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                &package,
            ],
        )?;
        Ok(())
    })?;
    let python = cache.install(&weather(), |dir| {
        let package = format!("mcp=={PYTHON_MCP_VERSION}");
        run_in(
            dir,
            "python3",
            &["-m", "pip", "install", "--quiet", "--target", "site", &package],
        )?;
        fs::write(dir.join("weather.py"), PYTHON_SERVER).map_err(io(dir))
    })?;
    Ok(Servers {
        node: answer("node", &["-p", "process.execPath"])?,
        everything: everything
            .join("node_modules")
            .join(EVERYTHING)
            .join("dist/index.js"),
        python: answer("python3", &["-c", "import sys; print(sys.executable)"])?,
        python_path: python.join("site"),
        weather: python.join("weather.py"),
    })
}

fn everything() -> Item {
    Item {
        name: "server-everything",
        version: EVERYTHING_VERSION,
        what: format!("Fetching {EVERYTHING} {EVERYTHING_VERSION} (npm)"),
        inputs: Vec::new(),
    }
}

fn weather() -> Item {
    // Packages with native parts belong to one version of the interpreter.
    let python = answer("python3", &["-c", "import sys; print(sys.version)"]).unwrap_or_default();
    Item {
        name: "python-mcp",
        version: PYTHON_MCP_VERSION,
        what: format!("Fetching the Python SDK mcp {PYTHON_MCP_VERSION} (PyPI)"),
        inputs: vec![PYTHON_SERVER.to_owned(), python.to_string_lossy().into_owned()],
    }
}

fn answer(program: &str, args: &[&str]) -> Result<PathBuf, CacheError> {
    let text = output_of(Command::new(program).args(args).current_dir(Path::new("/")))?;
    Ok(PathBuf::from(text.trim()))
}
