//! Watches the config file and the target of its symlink (data-plane.md 3.4): events are debounced, the file is read
//! and compared, and only a difference is sent on. One task, so reloads never overlap.

use super::document::{self, Dialect, DocumentError};
use super::model::Snapshot;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

const QUIET: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);
/// Some file systems deliver no events: the file is also read this often.
const POLL: Duration = Duration::from_secs(15);
/// A burst of file events needs one wake-up only.
const EVENT_QUEUE: usize = 1;

/// Where a config came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The mounted or local file.
    File,
    /// The Secret, by the API server.
    Watch,
}

impl Source {
    /// Value of `config.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Watch => "watch",
        }
    }
}

/// What a source says.
#[derive(Clone)]
pub enum Update {
    /// A new good config.
    Good(Source, Arc<Snapshot>),
    /// The newest config cannot be used; the previous one stays.
    Bad(Source, String),
}

/// Watches the first of `files` that exists (else the last) and sends updates until the receiver is gone. The first
/// update is sent at once.
pub async fn run(files: Vec<PathBuf>, dialect: Dialect, updates: mpsc::Sender<Update>) {
    let Some(path) = files.iter().find(|path| path.exists()).or(files.last()).cloned() else {
        return;
    };
    let (wake, mut events) = mpsc::channel(EVENT_QUEUE);
    let config = path.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| concerns(&config, &event)) {
            let _ = wake.try_send(());
        }
    })
    .ok();
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut watched = Vec::new();
    let mut last = None;
    loop {
        if let Some(watcher) = &mut watcher {
            follow(watcher, &path, &mut watched);
        }
        let read = tokio::fs::read(&path).await;
        if let Some(update) = changed((&path, dialect), read, &mut last)
            && updates.send(update).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = settled(&mut events) => {}
            () = told(&mut hangup) => tracing::info!(component = "config", "SIGHUP: the config is read again"),
            () = updates.closed() => return,
        }
    }
}

/// Whether an event may be a change of the config. Our own reads are events too, and so is what others write into the
/// folder; the links of a mounted Secret begin with `..`.
fn concerns(config: &Path, event: &notify::Event) -> bool {
    let target = config.canonicalize().unwrap_or_default();
    let names = [config.file_name(), target.file_name()];
    let named = |path: &PathBuf| {
        let name = path.file_name();
        names.contains(&name) || name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
    };
    !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(named))
}

/// SIGHUP, which daemons take as "read your files again".
async fn told(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits for an event or the poll interval, then for quiet.
async fn settled(events: &mut mpsc::Receiver<()>) {
    if !matches!(timeout(POLL, events.recv()).await, Ok(Some(()))) {
        return;
    }
    let end = Instant::now() + LONGEST;
    loop {
        tokio::select! {
            () = sleep_until(end) => return,
            event = timeout(QUIET, events.recv()) => if !matches!(event, Ok(Some(()))) { return },
        }
    }
}

/// Watches the folder of the path and, when the path is a link, that of its target.
fn follow(watcher: &mut RecommendedWatcher, path: &Path, watched: &mut Vec<PathBuf>) {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut wanted = vec![folder(path)];
    if let Ok(target) = path.canonicalize() {
        wanted.push(folder(&target));
    }
    for old in watched.iter().filter(|old| !wanted.contains(old)) {
        drop(watcher.unwatch(old));
    }
    for new in wanted.iter().filter(|new| !watched.contains(new)) {
        drop(watcher.watch(new, RecursiveMode::NonRecursive));
    }
    *watched = wanted;
}

/// Turns a read into an update when it differs from the last one.
fn changed(
    (path, dialect): (&Path, Dialect),
    read: std::io::Result<Vec<u8>>,
    last: &mut Option<Result<Vec<u8>, String>>,
) -> Option<Update> {
    let now = read.map_err(|error| format!("read {}: {}", path.display(), error.kind()));
    if last.as_ref() == Some(&now) {
        return None;
    }
    let update = match &now {
        Ok(bytes) => from_file((path, dialect), bytes),
        Err(text) => Update::Bad(Source::File, text.clone()),
    };
    *last = Some(now);
    Some(update)
}

/// Reads a config file; errors begin with `file:line:column`, what is wrong with an item with `file:line`, as far as they are
/// known.
pub fn from_file((path, dialect): (&Path, Dialect), bytes: &[u8]) -> Update {
    match document::read_as(bytes, dialect) {
        Ok(mut snapshot) => {
            for note in snapshot.errors.iter_mut().chain(&mut snapshot.warnings) {
                if let Some(placed) = note.strip_prefix("line ") {
                    *note = format!("{}:{placed}", path.display());
                }
            }
            Update::Good(Source::File, Arc::new(snapshot))
        }
        Err(error) => {
            let path = path.display();
            let text = match error {
                DocumentError::Yaml(Some((line, column))) => format!("{path}:{line}:{column}: {error}"),
                _ => format!("{path}: {error}"),
            };
            Update::Bad(Source::File, text)
        }
    }
}

/// Reads a document that came from the Secret.
pub fn from_secret(bytes: &[u8], dialect: Dialect) -> Update {
    match document::read_as(bytes, dialect) {
        Ok(snapshot) => Update::Good(Source::Watch, Arc::new(snapshot)),
        Err(error) => Update::Bad(Source::Watch, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, EventKind, ModifyKind};

    #[test]
    fn only_what_changes_the_config_wakes() {
        let config = Path::new("/etc/mcp/config.yaml");
        let event = |kind: EventKind, path: &str| notify::Event::new(kind).add_path(PathBuf::from(path));
        let change = EventKind::Modify(ModifyKind::Any);
        assert!(concerns(config, &event(change, "/etc/mcp/config.yaml")));
        assert!(concerns(config, &event(change, "/etc/mcp/..data")));
        assert!(concerns(config, &notify::Event::new(change)), "events were lost");
        assert!(!concerns(config, &event(change, "/etc/mcp/other.log")));
        let read = EventKind::Access(AccessKind::Any);
        assert!(!concerns(config, &event(read, "/etc/mcp/config.yaml")));
    }
}
