//! The cache outside the tree: `${MCPGW_CACHE:-~/.cache/mcp-gateway-operator}/<tool>-<version>-<key>/`.
//! An item appears complete or not at all (temporary directory, then rename), and two runs never make it twice (file lock).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::command::CommandError;
use crate::progress::{end_line, say, start_line};

/// Why an item is not in the cache.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// Neither `MCPGW_CACHE` nor `HOME` is set.
    #[error("set HOME or MCPGW_CACHE: the kit has no place for its cache")]
    NoHome,
    /// A file operation in the cache failed.
    #[error("cache {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// A program that makes the item failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The item was made, but is not what was expected.
    #[error("{0}")]
    Unexpected(String),
}

/// One thing that the cache can hold.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Short name, part of the directory's name, e.g. `etcd`.
    pub(crate) name: &'static str,
    /// Its version, e.g. `3.6.8`.
    pub(crate) version: &'static str,
    /// What the progress line says, e.g. `Building etcd 3.6.8`.
    pub(crate) what: String,
    /// Everything else that decides what is made: flags, module files.
    pub(crate) inputs: Vec<String>,
}

impl Item {
    /// The directory's name: `<name>-<version>-<key>`.
    #[must_use]
    pub(crate) fn directory(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, key(&self.inputs))
    }
}

/// The first 12 hexadecimal digits of a hash over `inputs`, in order.
#[must_use]
pub(crate) fn key(inputs: &[String]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(u64::try_from(input.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(input.as_bytes());
    }
    hex::encode(hash.finalize()).chars().take(12).collect()
}

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache of the environment, creating its directory.
    ///
    /// # Errors
    /// When neither `MCPGW_CACHE` nor `HOME` is set, or the directory cannot be made.
    pub(crate) fn from_env() -> Result<Self, CacheError> {
        let root = match std::env::var_os("MCPGW_CACHE") {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(std::env::var_os("HOME").ok_or(CacheError::NoHome)?)
                .join(".cache/mcp-gateway-operator"),
        };
        Self::at(&root)
    }

    /// Opens the cache at `root`, creating its directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn at(root: &Path) -> Result<Self, CacheError> {
        fs::create_dir_all(root.join("durations")).map_err(io(root))?;
        let root = fs::canonicalize(root).map_err(io(root))?;
        Ok(Self { root })
    }

    /// The cache's directory.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of `item`, if it was made already.
    #[must_use]
    pub(crate) fn find(&self, item: &Item) -> Option<PathBuf> {
        let dir = self.root.join(item.directory());
        dir.is_dir().then_some(dir)
    }

    /// The directory of `item`; makes it with `make`, which is given an empty directory, when it is not there.
    ///
    /// # Errors
    /// What `make` returns, or a failing file operation.
    pub(crate) fn install(
        &self,
        item: &Item,
        make: impl FnOnce(&Path) -> Result<(), CacheError>,
    ) -> Result<PathBuf, CacheError> {
        if let Some(dir) = self.find(item) {
            return Ok(dir);
        }
        let lock_path = self.root.join(format!(".lock-{}", item.name));
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        if lock.try_lock().is_err() {
            say(format!("==> Waiting for another run: {}", item.what));
            lock.lock().map_err(io(&lock_path))?;
        }
        if let Some(dir) = self.find(item) {
            return Ok(dir);
        }
        say(start_line(&item.what, self.last_duration(item.name)));
        let begun = Instant::now();
        let temporary = self
            .root
            .join(format!(".tmp-{}-{}", item.name, std::process::id()));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(io(&temporary))?;
        let made = make(&temporary);
        if made.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        made?;
        let dir = self.root.join(item.directory());
        fs::rename(&temporary, &dir).map_err(io(&dir))?;
        self.remember_duration(item.name, begun.elapsed());
        say(end_line(&item.what, begun.elapsed()));
        Ok(dir)
    }

    /// How long the step `name` took when it was last done.
    #[must_use]
    pub(crate) fn last_duration(&self, name: &str) -> Option<Duration> {
        let text = fs::read_to_string(self.root.join("durations").join(name)).ok()?;
        text.trim().parse().ok().map(Duration::from_millis)
    }

    /// Remembers how long the step `name` took.
    pub(crate) fn remember_duration(&self, name: &str, took: Duration) {
        // A lost duration costs only the words "first time here".
        let _ = fs::write(
            self.root.join("durations").join(name),
            took.as_millis().to_string(),
        );
    }
}

/// Names the path in an I/O error.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(flags: &str) -> Item {
        let inputs = vec![flags.to_owned()];
        Item {
            name: "tool",
            version: "1.0",
            what: "Making tool".to_owned(),
            inputs,
        }
    }

    #[test]
    fn an_item_is_made_once_and_its_duration_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let make = |at: &Path| fs::write(at.join("x"), "x").map_err(io(at));
        let first = cache.install(&item("a"), make).unwrap();
        assert!(first.join("x").is_file());
        let again = cache.install(&item("a"), |_| Err(CacheError::NoHome)).unwrap();
        assert_eq!(first, again);
        assert!(cache.last_duration("tool").is_some());
    }

    #[test]
    fn a_failed_item_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let failed = cache.install(&item("a"), |at| {
            fs::write(at.join("half"), "x").map_err(io(at))?;
            Err(CacheError::Unexpected("no".to_owned()))
        });
        assert!(failed.is_err());
        assert!(cache.find(&item("a")).is_none());
    }

    #[test]
    fn other_flags_make_another_directory() {
        assert_ne!(item("a").directory(), item("b").directory());
        assert_ne!(key(&["a".into(), "b".into()]), key(&["ab".into()]));
    }
}
