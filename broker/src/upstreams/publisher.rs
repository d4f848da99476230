//! What a connection publishes: its slot, and the rule of three failures (data-plane.md 6.1).

use super::snapshot::{ServerSnapshot, State};
use crate::auth::clock;
use crate::config::model::ServerConfig;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Failures after which the items are withdrawn.
pub(super) const TOLERATED: u32 = 3;

/// Writes the slot.
pub(super) struct Publisher {
    pub(super) config: Arc<ServerConfig>,
    pub(super) slot: Arc<ArcSwap<ServerSnapshot>>,
    pub(super) changed: Arc<Notify>,
    /// Checks that failed in a row.
    pub(super) failures: u32,
}

impl Publisher {
    pub(super) fn publish(&self, snapshot: ServerSnapshot) {
        let mut before = ServerSnapshot::clone(&self.slot.load());
        before.last_validated.clone_from(&snapshot.last_validated);
        let differs = before != snapshot;
        self.slot.store(Arc::new(snapshot));
        if differs {
            self.changed.notify_one();
        }
    }

    pub(super) fn disabled(&mut self) {
        self.publish(ServerSnapshot {
            state: State::Disabled,
            message: "server is disabled".to_owned(),
            attempted: true,
            version_ok: true,
            ..ServerSnapshot::default()
        });
    }

    /// One failed check: the last good items stay for two failures and go with the third.
    pub(super) fn failed(&mut self, what: &str) {
        let mut next = ServerSnapshot::clone(&self.slot.load());
        self.failures = self.failures.saturating_add(1);
        next.failures = self.failures;
        next.attempted = true;
        next.last_validated = clock::rfc3339();
        let had_items = next.state != State::Connecting && next.state != State::Down;
        let down = next.failures >= TOLERATED || !had_items;
        let suffix = match (had_items, next.failures >= TOLERATED) {
            (true, false) => format!(
                " [serving last known tools, failure {} of {TOLERATED}]",
                next.failures
            ),
            (_, true) => " [removed tools]".to_owned(),
            (false, false) => String::new(),
        };
        next.state = match (next.state, down) {
            (State::Connecting, _) if next.failures < TOLERATED => State::Connecting,
            (_, true) => State::Down,
            (_, false) => State::Degraded,
        };
        next.message = format!("{what}{suffix}");
        next.stale = had_items && !down;
        next.served = next.stale;
        next.ready = next.stale;
        self.log_failure(next.failures, what);
        self.publish(next);
    }

    fn log_failure(&self, failures: u32, what: &str) {
        let started_here = self.config.command.is_some() && !self.config.bridged;
        if is_logged(failures, started_here) {
            tracing::warn!(
                component = "manager",
                server = self.config.name,
                failures,
                error = what,
                "MCP server failed"
            );
        }
    }
}

/// Whether this failure in a row is one to speak of. What the gateway itself starts need not listen at the first attempt.
const fn is_logged(failures: u32, started_here: bool) -> bool {
    match failures {
        1 => !started_here,
        TOLERATED => true,
        _ => failures.is_multiple_of(60),
    }
}

#[cfg(test)]
mod tests {
    use super::is_logged;

    #[test]
    fn the_first_failure_the_last_tolerated_one_and_every_sixtieth_are_logged() {
        let logged = |started_here| (1..=120).filter(move |failures| is_logged(*failures, started_here));
        assert_eq!(logged(false).collect::<Vec<_>>(), [1, 3, 60, 120]);
        assert_eq!(logged(true).collect::<Vec<_>>(), [3, 60, 120]);
    }
}
