//! Helm itself. `MCPGW_HELM3` and `MCPGW_HELM4` name other builds.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use anyhow::{Context, bail, ensure};

/// A major version of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helm {
    /// The 3.x line.
    V3,
    /// The 4.x line.
    V4,
}

/// Both lines, for tests that hold for either.
pub const EITHER: [Helm; 2] = [Helm::V3, Helm::V4];

impl Helm {
    const fn variable(self) -> &'static str {
        match self {
            Self::V3 => "MCPGW_HELM3",
            Self::V4 => "MCPGW_HELM4",
        }
    }

    /// Folder of the pinned module, and the package to build.
    const fn module(self) -> (&'static str, &'static str) {
        match self {
            Self::V3 => ("helm3", "helm.sh/helm/v3/cmd/helm"),
            Self::V4 => ("helm", "helm.sh/helm/v4/cmd/helm"),
        }
    }

    /// The program, built when it is not in the cache yet (once, however many tests ask at the same time).
    ///
    /// # Errors
    /// When Go is missing, the module cannot be downloaded, or the cache cannot be written.
    pub fn program(self) -> anyhow::Result<PathBuf> {
        static BUILT: [OnceLock<Result<PathBuf, String>>; 2] = [OnceLock::new(), OnceLock::new()];
        let [three, four] = &BUILT;
        let cell = if self == Self::V3 { three } else { four };
        cell.get_or_init(|| self.build().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    fn build(self) -> anyhow::Result<PathBuf> {
        if let Some(path) = env::var_os(self.variable()) {
            return Ok(path.into());
        }
        let (folder, package) = self.module();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(folder);
        let pinned = fs::read(source.join("go.sum")).context("reading the pinned Go module")?;
        let program = cache()?
            .join(format!("{folder}-{:016x}", fingerprint(&pinned)))
            .join("helm");
        if program.is_file() {
            return Ok(program);
        }
        let unfinished = program.with_extension(std::process::id().to_string());
        let built = Command::new("go")
            .current_dir(&source)
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-mod=readonly", "-ldflags", "-s -w", "-o"])
            .arg(&unfinished)
            .arg(package)
            .output()
            .with_context(|| format!("running go; or set {}", self.variable()))?;
        ensure!(
            built.status.success(),
            "building {package}: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        fs::rename(&unfinished, &program).context("moving the new helm into the cache")?;
        Ok(program)
    }

    /// Runs it in the root of the repository, with a configuration of its own.
    ///
    /// # Errors
    /// When it cannot be started; a failing run is in the output.
    pub fn run(self, arguments: &[&str]) -> anyhow::Result<Output> {
        let home = cache()?.join("helm-home");
        Command::new(self.program()?)
            .current_dir(root())
            .envs(
                ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, home.join(name))),
            )
            .args(arguments)
            .output()
            .context("running helm")
    }

    /// Standard output of a run.
    ///
    /// # Errors
    /// When it fails, with what it wrote.
    pub fn output(self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            bail!(
                "helm {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        String::from_utf8(output.stdout).context("helm wrote something that is not text")
    }
}

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cache() -> anyhow::Result<PathBuf> {
    let root = match env::var_os("MCPGW_CACHE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").context("set HOME or MCPGW_CACHE")?)
            .join(".cache/mcp-gateway-operator"),
    };
    fs::create_dir_all(&root).context("making the cache")?;
    Ok(root)
}

/// FNV-1a: names a cache entry, guards nothing (Go checks the sums).
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
