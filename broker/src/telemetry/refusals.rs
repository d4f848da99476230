//! The log of refusals (data-plane.md 18.4): a line each, at most [`MAX_PER_SECOND`] a second for one reason, then their
//! number. A client that is refused a thousand times a second writes ten lines of them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines a second for one reason.
pub const MAX_PER_SECOND: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

struct Window {
    began: Instant,
    seen: u32,
}

/// What to do with one refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It gets a line; before it, the number of those that got none.
    Line(u32),
    /// It is only counted.
    Counted,
}

/// Refusals by reason; reasons are words of ours, so there are few.
#[derive(Default)]
pub struct RefusalLog {
    windows: Mutex<HashMap<&'static str, Window>>,
}

impl RefusalLog {
    /// Logs a refusal, or counts it.
    pub fn refused(&self, method: &str, reason: &'static str, status: u16) {
        let Turn::Line(unlogged) = self.turn(reason, Instant::now()) else {
            return;
        };
        if unlogged > 0 {
            tracing::info!(
                component = "router",
                reason,
                number = unlogged,
                "Refusals not logged"
            );
        }
        tracing::info!(component = "router", method, reason, status, "Request refused");
    }

    /// Logs a call that did not get to its server, or counts it.
    pub fn undelivered(&self, server: &str, error: &dyn std::fmt::Display) {
        let Turn::Line(unlogged) = self.turn("undelivered", Instant::now()) else {
            return;
        };
        if unlogged > 0 {
            let number = unlogged;
            tracing::info!(component = "front", number, "Calls not delivered, not logged");
        }
        tracing::info!(component = "front", server, %error, "Call not delivered");
    }

    fn turn(&self, reason: &'static str, now: Instant) -> Turn {
        let Ok(mut windows) = self.windows.lock() else {
            return Turn::Counted;
        };
        let window = windows.entry(reason).or_insert(Window { began: now, seen: 0 });
        let mut unlogged = 0;
        if now.duration_since(window.began) >= WINDOW {
            unlogged = window.seen.saturating_sub(MAX_PER_SECOND);
            *window = Window { began: now, seen: 0 };
        }
        window.seen = window.seen.saturating_add(1);
        if window.seen <= MAX_PER_SECOND {
            Turn::Line(unlogged)
        } else {
            Turn::Counted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_for_one_reason_and_then_their_number() {
        let (log, now) = (RefusalLog::default(), Instant::now());
        for _ in 0..MAX_PER_SECOND {
            assert_eq!(log.turn("session", now), Turn::Line(0));
        }
        assert_eq!(log.turn("session", now), Turn::Counted);
        assert_eq!(log.turn("session", now), Turn::Counted);
        assert_eq!(log.turn("origin", now), Turn::Line(0));
        assert_eq!(log.turn("session", now + WINDOW), Turn::Line(2));
        assert_eq!(log.turn("session", now + WINDOW), Turn::Line(0));
    }
}
