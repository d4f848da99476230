//! Child processes (data-plane.md 13, S25): one message is one line. A child sees nothing of the gateway's environment but
//! a few harmless variables, lives in a process group of its own, and ends with its session or the gateway.

use super::link::{Link, LinkError, QUEUE};
use super::orphan;
use crate::config::model::{ChildCommand, ServerConfig};
use crate::config::trouble::Trouble;
use futures::StreamExt as _;
use prometheus_client::metrics::gauge::Gauge;
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Children at once (data-plane.md 15.1).
static CHILDREN: Semaphore = Semaphore::const_new(64);
const MAX_LINE: usize = 8 * 1024 * 1024;
/// What a child may log per second, bytes.
const LOG_RATE: usize = 8 * 1024;
/// Variables that a child inherits.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// From the end of its output to its own end.
const LEAVING: Duration = Duration::from_secs(1);
/// From the end of its input to SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL.
const TERMINATION: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A child that lasted longer was a good one.
const LASTING: Duration = Duration::from_secs(10);

/// When the next child of a server may be started.
#[derive(Clone, Default)]
pub(super) struct Starts(Arc<Mutex<Option<(Instant, Duration)>>>);

impl Starts {
    fn may_start(&self) -> bool {
        let next = self.0.lock().ok().and_then(|next| *next);
        next.is_none_or(|(at, _)| at <= Instant::now())
    }

    /// A child that is ended by us was a good one, when it lasted.
    fn was_ended(&self, lasted: Duration) {
        if lasted > LASTING
            && let Ok(mut next) = self.0.lock()
        {
            *next = None;
        }
    }

    /// A child that ended by itself soon after its start puts the next one off, each time for longer; the pause.
    fn ended(&self, lasted: Duration) -> Duration {
        let Ok(mut next) = self.0.lock() else {
            return LONGEST_PAUSE;
        };
        if lasted > LASTING {
            *next = None;
            return FIRST_PAUSE;
        }
        let pause = next.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        *next = Some((Instant::now() + pause, pause));
        pause
    }
}

/// A server and the number of its children.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) running: Gauge,
}

/// The place of a child that runs.
struct Place {
    _permit: SemaphorePermit<'static>,
    running: Gauge,
}

impl Place {
    fn new(permit: SemaphorePermit<'static>, server: &Named) -> Self {
        server.running.inc();
        Self {
            _permit: permit,
            running: server.running.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.dec();
    }
}

/// Starts a child for one session, or one that several share. Its task is put into `tasks`, which is waited for when the gateway ends.
pub(super) fn open(
    (server, named): (&ServerConfig, &Named),
    command: &ChildCommand,
    starts: &Starts,
    (end, tasks): (CancellationToken, &TaskTracker),
) -> Result<Link, LinkError> {
    if !starts.may_start() {
        return Err(LinkError::Backoff);
    }
    let permit = CHILDREN.try_acquire().map_err(|_| LinkError::Busy)?;
    let mut child = start(command, Stdio::piped())?;
    let (outgoing, lines) = mpsc::channel(QUEUE);
    let (to, incoming) = mpsc::channel(QUEUE);
    let closed = CancellationToken::new();
    if let Some(stdin) = child.stdin.take() {
        tokio::spawn(write(stdin, lines, end.clone()));
    }
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(read(stdout, to, (closed.clone(), end.clone())));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(log(server.name.clone(), stderr));
    }
    tasks.spawn(watch(
        (server.name.clone(), server.trouble.clone()),
        child,
        (closed, end.clone(), Place::new(permit, named)),
        starts.clone(),
    ));
    Ok(Link {
        outgoing,
        incoming,
        end,
    })
}

/// Keeps a program running that serves a URL by itself.
pub(super) async fn keep_running(server: Named, command: Arc<ChildCommand>, end: CancellationToken) {
    let (starts, name) = (Starts::default(), &server.name);
    while !end.is_cancelled() {
        let permit = tokio::select! {
            () = end.cancelled() => return,
            permit = CHILDREN.acquire() => permit,
        };
        let Ok(permit) = permit else { return };
        let started = Instant::now();
        match start(&command, Stdio::null()) {
            Ok(mut child) => {
                for output in [
                    child
                        .stdout
                        .take()
                        .map(|out| Box::new(out) as Box<dyn AsyncRead + Send + Unpin>),
                    child
                        .stderr
                        .take()
                        .map(|out| Box::new(out) as Box<dyn AsyncRead + Send + Unpin>),
                ] {
                    tokio::spawn(log(
                        name.clone(),
                        output.unwrap_or_else(|| Box::new(tokio::io::empty())),
                    ));
                }
                let nobody = Trouble::default();
                watch(
                    (name.clone(), nobody),
                    child,
                    // The end of one child is not the end of keeping it running.
                    (
                        CancellationToken::new(),
                        end.child_token(),
                        Place::new(permit, &server),
                    ),
                    Starts::default(),
                )
                .await;
            }
            Err(error) => {
                drop(permit);
                tracing::warn!(component = "front", server = name, %error, "Server not started");
            }
        }
        let pause = starts.ended(started.elapsed());
        tokio::select! {
            () = end.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}

fn start(command: &ChildCommand, input: Stdio) -> Result<Child, LinkError> {
    let program = program(command)?;
    if let Some(folder) = command
        .folder
        .as_deref()
        .filter(|folder| !Path::new(folder).is_dir())
    {
        return Err(LinkError::Folder(folder.to_owned()));
    }
    let mut process = orphan::command(&program);
    process
        .args(&command.arguments)
        .env_clear()
        .envs(
            PASSED
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?))),
        )
        .envs(&command.environment)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = &command.folder {
        process.current_dir(folder);
    }
    process.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => LinkError::Missing(command.program.clone()),
        kind => LinkError::Start {
            program: command.program.clone(),
            kind,
        },
    })
}

/// The program, which can be started. A name that is nowhere in `PATH` is looked for beside this program too.
fn program(command: &ChildCommand) -> Result<PathBuf, LinkError> {
    let name = &command.program;
    let own = std::env::current_exe().unwrap_or_default();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = if name.contains('/') {
        // As its own working directory would have it.
        let folder = command.folder.as_deref().unwrap_or_default();
        Some(Path::new(folder).join(name)).filter(|path| path.exists())
    } else {
        let folders = std::env::split_paths(&folders).chain(own.parent().map(Path::to_path_buf));
        let mut paths = folders.map(|folder| folder.join(name));
        paths.find(|path| path.is_file())
    };
    let found = found.ok_or_else(|| LinkError::Missing(name.clone()))?;
    access(&found, Access::EXEC_OK).map_err(|error| LinkError::Start {
        program: name.clone(),
        kind: std::io::Error::from(error).kind(),
    })?;
    std::path::absolute(&found).map_err(|error| LinkError::Start {
        program: name.clone(),
        kind: error.kind(),
    })
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<String>, end: CancellationToken) {
    loop {
        let line = tokio::select! {
            () = end.cancelled() => return,
            line = lines.recv() => line,
        };
        let Some(mut line) = line else { return };
        line.push('\n');
        // A child that reads nothing holds only this task up; its session ends it.
        tokio::select! {
            () = end.cancelled() => return,
            written = stdin.write_all(line.as_bytes()) => if written.is_err() { return },
        }
    }
}

/// Reads what a child answers; `closed` says that it was not us who ended that.
async fn read(
    stdout: impl AsyncRead + Unpin,
    to: mpsc::Sender<String>,
    (closed, end): (CancellationToken, CancellationToken),
) {
    let mut lines = FramedRead::new(stdout, LinesCodec::new_with_max_length(MAX_LINE));
    while let Some(Ok(line)) = lines.next().await {
        if !line.trim().is_empty() && to.send(line).await.is_err() {
            break;
        }
    }
    if !end.is_cancelled() {
        closed.cancel();
    }
    // No further answer can come, also when a line was too long.
    end.cancel();
}

/// What a child says beside its messages, as far as the rate allows.
async fn log(name: String, output: impl AsyncRead + Unpin) {
    let mut lines = FramedRead::new(output, LinesCodec::new_with_max_length(LOG_RATE));
    let (mut second, mut said) = (Instant::now(), 0);
    let mut failed = false;
    loop {
        let line = match lines.next().await {
            // After a line that cannot be read comes one end that is none.
            None if std::mem::take(&mut failed) => continue,
            None => return,
            Some(line) => line,
        };
        if second.elapsed() > Duration::from_secs(1) {
            (second, said) = (Instant::now(), 0);
        }
        match line {
            Ok(line) if said + line.len() <= LOG_RATE => {
                said += line.len();
                tracing::info!(component = "front", server = name, output = line, "Server says");
            }
            // Too much, or no text: it is read and dropped, so that the child does not block.
            Ok(_) => {}
            Err(LinesCodecError::Io(error)) if error.kind() != ErrorKind::InvalidData => return,
            Err(_) => failed = true,
        }
    }
}

/// What the status of the server says of a process that ended.
fn ended(status: ExitStatus) -> String {
    format!("its process ended with {status}; what it wrote is in the log")
}

/// Waits for the end of a child, or ends it: its input is closed, then it is asked, then killed. A child whose output is
/// `closed` is about to end by itself.
async fn watch(
    (name, trouble): (String, Trouble),
    mut child: Child,
    (closed, end, place): (CancellationToken, CancellationToken, Place),
    starts: Starts,
) {
    let started = Instant::now();
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut left = tokio::select! {
        () = end.cancelled() => None,
        left = child.wait() => left.ok(),
    };
    if closed.is_cancelled() && left.is_none() {
        left = timeout(LEAVING, child.wait()).await.ok().and_then(Result::ok);
    }
    match left {
        Some(status) => {
            end.cancel();
            starts.ended(started.elapsed());
            trouble.set(ended(status));
            tracing::info!(component = "front", server = name, %status, "Server process ended");
        }
        None => {
            starts.was_ended(started.elapsed());
            for (wait, signal) in [(GRACE, Signal::TERM), (TERMINATION, Signal::KILL)] {
                if timeout(wait, child.wait()).await.is_ok() {
                    break;
                }
                let _ = group.map(|group| kill_process_group(group, signal));
            }
            let _ = timeout(GRACE, child.wait()).await;
        }
    }
    // A wrapper that ends first leaves the server itself behind.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s23_a_line_past_its_bound_ends_the_child_and_one_at_it_passes() {
        for (size, passes) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
            let text = format!("{}\n", "x".repeat(size));
            let (to, mut lines) = mpsc::channel(QUEUE);
            let end = CancellationToken::new();
            read(text.as_bytes(), to, (CancellationToken::new(), end.clone())).await;
            assert_eq!(lines.recv().await.map(|line| line.len()), passes.then_some(size));
            assert!(end.is_cancelled());
        }
    }

    #[tokio::test]
    async fn s23_there_are_sixty_four_children_at_most() {
        let all = CHILDREN.acquire_many(64).await.unwrap();
        assert!(CHILDREN.try_acquire().is_err());
        let text = "servers:\n- {name: a, command: 'true'}\n";
        let dialect = crate::config::document::Dialect {
            forwards: true,
            local: Some(|_| None),
        };
        let snapshot = crate::config::document::read_as(text.as_bytes(), dialect).unwrap();
        let (server, end) = (&snapshot.servers[0], CancellationToken::new());
        let command = server.command.clone().unwrap();
        let tasks = TaskTracker::new();
        let named = Named {
            name: server.name.clone(),
            running: Gauge::default(),
        };
        let started = |end| open((server, &named), &command, &Starts::default(), (end, &tasks)).map(drop);
        assert!(matches!(started(end.clone()), Err(LinkError::Busy)));
        drop(all);
        assert!(started(end.clone()).is_ok());
        end.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
