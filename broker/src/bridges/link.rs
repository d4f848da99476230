//! Both directions of a connection to a server, whatever carries it: one message is one text without line breaks.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that wait in one direction.
pub(super) const QUEUE: usize = 64;

/// A connection.
pub(super) struct Link {
    /// To the server.
    pub(super) outgoing: mpsc::Sender<String>,
    /// From the server; it ends with the connection.
    pub(super) incoming: mpsc::Receiver<String>,
    /// Ends it.
    pub(super) end: CancellationToken,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// There is no such program.
    #[error("start {0}: no such program in PATH or beside the gateway; install it, or give its path")]
    Missing(String),
    /// The working directory is none.
    #[error("cwd {0} is no folder")]
    Folder(String),
    /// The program cannot be started.
    #[error("start {program}: {kind}")]
    Start {
        /// Name of the program.
        program: String,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// As many as may run do.
    #[error("too many child processes")]
    Busy,
    /// It failed a moment ago.
    #[error("waiting before the next start")]
    Backoff,
    /// The server of an event stream cannot be reached, or does not behave like one.
    #[error("{0}")]
    Stream(String),
}
