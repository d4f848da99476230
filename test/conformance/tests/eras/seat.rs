//! The place of one client at one gateway: which server is behind it, what has to work there, and what the server saw.

use mcp_gateway_conformance::fixture::{EraChoice, Kind, Options};
use mcp_gateway_conformance::harness::gateway::{Behind, Front, Gateway};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const STATELESS: &str = "2026-07-28";
pub(crate) const REVISIONS: [&str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", STATELESS];
pub(crate) const OPERATIONS: [&str; 9] = [
    "list", "call", "get", "read", "error", "progress", "cancel", "change", "ask",
];

/// A cell: it works, or it fails as docs/guides/revisions.md says.
pub(crate) type Cell = Result<&'static str, String>;
pub(crate) const WORKS: Cell = Ok("ok");
pub(crate) const DOCUMENTED: Cell = Ok("documented");

/// A kind of server: of one revision, or of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    era: EraChoice,
    revision: Option<&'static str>,
}

const fn sessions(revision: &'static str) -> Server {
    Server {
        name: revision,
        era: EraChoice::Legacy,
        revision: Some(revision),
    }
}

pub(crate) const SERVERS: [Server; 5] = [
    sessions("2025-03-26"),
    sessions("2025-06-18"),
    sessions("2025-11-25"),
    Server {
        name: STATELESS,
        era: EraChoice::Modern,
        revision: None,
    },
    Server {
        name: "all",
        era: EraChoice::Dual,
        revision: None,
    },
];

impl Server {
    pub(crate) fn has_sessions_only(self) -> bool {
        self.era == EraChoice::Legacy
    }

    /// The fixture that is such a server.
    pub(crate) fn behind(self, name: &str, prefix: &str) -> Behind {
        Behind {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            options: Options {
                era: self.era,
                revision: self.revision.map(str::to_owned),
                ..Options::default()
            },
        }
    }
}

/// One client at one gateway with one server.
pub(crate) struct Seat<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) server: Server,
    pub(crate) way: Front,
    /// Of the client.
    pub(crate) revision: &'static str,
}

impl Seat<'_> {
    pub(crate) fn is_stateless(&self) -> bool {
        self.revision == STATELESS
    }

    /// Client and server share no era.
    fn is_bridged(&self) -> bool {
        match self.server.era {
            EraChoice::Dual => false,
            EraChoice::Legacy => self.is_stateless(),
            EraChoice::Modern => !self.is_stateless(),
        }
    }

    /// The operation does not cross between the eras here: a server's question reaches a stateless client only from a stateless
    /// server, and nothing that the router can say ends a request that Envoy carries.
    pub(crate) fn is_documented(&self, operation: &str) -> bool {
        let through_envoy = self.way == Front::Envoy;
        match operation {
            "ask" => self.is_bridged() && (self.is_stateless() || through_envoy),
            "cancel" => self.is_bridged() && !self.is_stateless() && through_envoy,
            _ => false,
        }
    }

    /// Forgets what the server saw.
    pub(crate) fn forget(&self) {
        self.gateway.seen_by("fixture").unwrap().clear();
    }

    fn saw(&self, kind: Kind, target: Option<&str>) -> bool {
        let entries = self.gateway.seen_by("fixture").unwrap().entries();
        let mut entries = entries.iter();
        entries.any(|entry| entry.kind == kind && (target.is_none() || entry.target.as_deref() == target))
    }

    /// Waits until the server runs the long call.
    pub(crate) async fn running(&self) -> Cell {
        eventually(|| self.saw(Kind::Request, Some("test_sleep"))).await
    }

    /// Waits until the server was told that the call is cancelled, where that gets through.
    pub(crate) async fn cancelled(&self) -> Cell {
        if self.is_documented("cancel") {
            return DOCUMENTED;
        }
        eventually(|| self.saw(Kind::Cancelled, None)).await
    }

    /// Judges the result of `test_elicitation`: its text, and whether it says of itself that it failed.
    pub(crate) fn asked(&self, text: &str, failed: bool) -> Cell {
        if self.is_documented("ask") {
            return expect(text.contains("elicitation") && failed, text).and(DOCUMENTED);
        }
        expect(text.contains("User response") && !failed, text)
    }
}

pub(crate) fn expect(condition: bool, what: impl std::fmt::Debug) -> Cell {
    if condition {
        WORKS
    } else {
        Err(format!("{what:?}"))
    }
}

pub(crate) async fn eventually(condition: impl Fn() -> bool) -> Cell {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() > end {
            return Err("it did not happen in time".to_owned());
        }
        sleep(Duration::from_millis(20)).await;
    }
    WORKS
}
