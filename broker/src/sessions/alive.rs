//! The client sessions that this process made and that are neither ended nor expired: nothing but ids, so that they can be
//! counted. A session is in the memory of one replica only, so the replicas' counts add up.

use crate::telemetry::metrics::Metrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// Sessions that a replica remembers (data-plane.md 15.1); past it new ones are not counted.
const MAX_SESSIONS: usize = 100_000;

/// The sessions.
pub(super) struct Alive {
    /// End, Unix seconds.
    sessions: Mutex<HashMap<Uuid, u64>>,
    limit: usize,
    metrics: Arc<Metrics>,
}

impl Alive {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            sessions: Mutex::default(),
            limit: MAX_SESSIONS,
            metrics,
        }
    }

    fn act(&self, act: impl FnOnce(&mut HashMap<Uuid, u64>)) {
        let Ok(mut sessions) = self.sessions.lock() else {
            return;
        };
        act(&mut sessions);
        let active = i64::try_from(sessions.len()).unwrap_or(i64::MAX);
        self.metrics.sessions.active.set(active);
    }

    pub(super) fn begun(&self, jti: Uuid, expires: u64) {
        self.act(|sessions| {
            if sessions.len() < self.limit {
                sessions.insert(jti, expires);
            }
        });
    }

    pub(super) fn ended(&self, jti: Uuid) {
        self.act(|sessions| {
            sessions.remove(&jti);
        });
    }

    /// Forgets those that ended by themselves, and counts them as that.
    pub(super) fn sweep(&self, now: u64) {
        self.act(|sessions| {
            let before = sessions.len();
            sessions.retain(|_, expires| *expires > now);
            self.metrics.sessions.expired((before - sessions.len()) as u64);
            sessions.shrink_to_fit();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_sessions_are_counted_up_to_their_bound_and_counted_back() {
        let metrics = Arc::new(Metrics::default());
        let alive = Alive {
            limit: 3,
            ..Alive::new(Arc::clone(&metrics))
        };
        let ids = [(); 4].map(|()| Uuid::new_v4());
        let active = || metrics.sessions.active.get();
        for (number, id) in ids.into_iter().enumerate() {
            alive.begun(id, 10 + number as u64);
        }
        assert_eq!(active(), 3);
        alive.ended(ids[3]);
        assert_eq!(active(), 3, "it was not counted");
        alive.ended(ids[0]);
        alive.ended(ids[0]);
        assert_eq!(active(), 2);
        alive.sweep(11);
        assert_eq!(active(), 1);
        alive.sweep(u64::MAX);
        assert_eq!(active(), 0);
        let text = metrics.text();
        assert!(
            text.contains(r#"mcp_session_ended_total{reason="expired"} 2"#),
            "{text}"
        );
    }
}
