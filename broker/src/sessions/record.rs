//! What a session store keeps and tells: plain values.

use crate::protocol::version;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// Resources that one session may be subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 1000;
/// Their URIs together, bytes.
pub const MAX_SUBSCRIBED: usize = 256 * 1024;

/// A backend session: what is sent to one MCP server on behalf of one client session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSession {
    /// `Mcp-Session-Id` of the server; `None` when the server issues none, which is a value too (D20).
    pub id: Option<String>,
    /// Version that the server negotiated.
    pub version: String,
    /// The server offers logging.
    pub logging: bool,
}

impl BackendSession {
    /// What stands for a session with a server that has none.
    pub fn stateless() -> Self {
        Self {
            id: None,
            version: version::MODERN.to_owned(),
            logging: true,
        }
    }
}

/// A resource that a session subscribed to: server name and the server's own URI.
pub type Subscription = (String, String);

/// Everything that is remembered of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The session was ended.
    pub revoked: bool,
    /// Backend sessions by server name.
    pub backends: BTreeMap<String, BackendSession>,
    /// Per-user tokens by server name, encrypted (`auth::vault`).
    pub tokens: BTreeMap<String, String>,
    /// Log level that the client set.
    pub level: Option<String>,
    /// Published tool names that `select_tools` left in the list; `None` is all.
    pub scope: Option<Arc<Vec<String>>>,
    /// Name of the server that the session called last.
    pub last: Option<String>,
    /// What it subscribed to.
    pub subscriptions: BTreeSet<Subscription>,
}

/// What one lookup for a call gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// The session was ended.
    pub revoked: bool,
    /// Backend session with the server asked for.
    pub backend: Option<BackendSession>,
    /// Log level that the client set.
    pub level: Option<String>,
    /// Per-user token for the server asked for, encrypted.
    pub token: Option<String>,
    /// Name of the server that the session called last.
    pub last: Option<String>,
}

/// The store failed or is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer.
    #[error("session store unavailable")]
    Unavailable,
    /// The bound of the in-process store is reached.
    #[error("too many sessions")]
    Full,
}

/// What became of a backend session that was to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the one of this client session now.
    Stored,
    /// Another one was there first; use that.
    Taken(BackendSession),
    /// The client session was ended meanwhile.
    Ended,
}

/// One value of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Log level.
    Level(String),
    /// What `select_tools` chose; `None` resets.
    Scope(Option<Vec<String>>),
    /// Encrypted per-user token for a server; `None` drops it.
    Token(String, Option<String>),
    /// The server that was called last: it owns the event ids that are not ours (data-plane.md 4.6).
    Last(String),
    /// A subscription, made or (false) ended; at most [`MAX_SUBSCRIPTIONS`] of [`MAX_SUBSCRIBED`] bytes.
    Subscribed(Subscription, bool),
}

/// Tells other parts, and other replicas, that something about a session is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// It was ended.
    Ended(Uuid),
    /// Its scope is another one.
    Scope(Uuid),
    /// Anything else.
    Changed(Uuid),
    /// A client answered the question with this tag, with a result or (false) an error, and another replica asked it.
    Answered(u64, bool),
}

impl Record {
    /// What a call to `server` needs to know.
    pub(super) fn facts(&self, server: &str) -> SessionFacts {
        SessionFacts {
            revoked: self.revoked,
            backend: self.backends.get(server).cloned(),
            level: self.level.clone(),
            token: self.tokens.get(server).cloned(),
            last: self.last.clone(),
        }
    }
}

impl Change {
    /// What others are told of it; `None` for what changes too often to tell.
    pub(super) fn event(&self, jti: Uuid) -> Option<SessionEvent> {
        match self {
            Self::Scope(_) => Some(SessionEvent::Scope(jti)),
            Self::Level(_) | Self::Token(..) | Self::Subscribed(..) => Some(SessionEvent::Changed(jti)),
            Self::Last(_) => None,
        }
    }
}
