//! What one connection publishes about its server. Immutable; replaced as a whole.

use super::items::Items;
use crate::protocol::version::Era;
use std::sync::Arc;

/// State of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not connected by configuration.
    Disabled,
    /// No success yet.
    #[default]
    Connecting,
    /// The last check succeeded.
    Ready,
    /// One or two checks failed; the last good items are served.
    Degraded,
    /// Three or more checks failed; nothing is served.
    Down,
}

/// Everything that others know of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// State.
    pub state: State,
    /// Consecutive failures of connect, ping or list.
    pub failures: u32,
    /// What `/status` says.
    pub message: String,
    /// When the last attempt ended, RFC 3339.
    pub last_validated: String,
    /// Negotiated version; empty before the first success.
    pub version: String,
    /// A server that needs no sessions has them, too.
    pub sessions: bool,
    /// False when the server negotiated a version that is not served.
    pub version_ok: bool,
    /// The server offers completions.
    pub completions: bool,
    /// The server offers resources.
    pub resources: bool,
    /// Items of the last good lists. Their names stay reserved also while they are not served.
    pub items: Arc<Items>,
    /// Whether the items are served.
    pub served: bool,
    /// Items come from an earlier list.
    pub stale: bool,
    /// The server is answerable and nothing forbids serving it.
    pub ready: bool,
    /// The first attempt has ended, or none will be made.
    pub attempted: bool,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

impl ServerSnapshot {
    /// How the server speaks; that of sessions before the first success.
    pub fn era(&self) -> Era {
        Era::of(&self.version)
    }

    /// How it is spoken to on behalf of a client of an era: as the client speaks, when the server can.
    pub fn era_for(&self, client: Era) -> Era {
        match (self.era(), client) {
            (Era::Modern, Era::Legacy) if self.sessions => Era::Legacy,
            (era, _) => era,
        }
    }
}
