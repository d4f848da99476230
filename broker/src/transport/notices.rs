//! Change notices of one server: one slot per kind, however often the server sends them.

use crate::telemetry::metrics::Metrics;
use crate::telemetry::relay_metrics::Direction;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::Notify;

/// What a server says has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `notifications/tools/list_changed`
    Tools = 1,
    /// `notifications/prompts/list_changed`
    Prompts = 2,
    /// `notifications/resources/list_changed`
    Resources = 4,
}

impl Notice {
    /// The notice that a notification method is, if it is one.
    pub fn of(method: &str) -> Option<Self> {
        match method {
            "notifications/tools/list_changed" => Some(Self::Tools),
            "notifications/prompts/list_changed" => Some(Self::Prompts),
            "notifications/resources/list_changed" => Some(Self::Resources),
            _ => None,
        }
    }
}

/// The slots.
#[derive(Default)]
pub struct Notices {
    bits: AtomicU8,
    wake: Notify,
    /// Where the server's notices are counted.
    metrics: Option<Arc<Metrics>>,
}

impl Notices {
    /// Slots that are empty; what fills them is counted.
    #[must_use]
    pub fn counted(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics: Some(metrics),
            ..Self::default()
        }
    }

    /// The server sent a notification.
    pub fn received(&self, method: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.relays.notices(method, Direction::FromServer, 1);
        }
        if let Some(notice) = Notice::of(method) {
            self.post(notice);
        }
    }

    /// Fills a slot and wakes the connection.
    pub fn post(&self, notice: Notice) {
        self.bits.fetch_or(notice as u8, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Waits until a slot is filled.
    pub async fn wait(&self) {
        while self.bits.load(Ordering::Acquire) == 0 {
            self.wake.notified().await;
        }
    }

    /// Empties the slots.
    pub fn clear(&self) {
        self.bits.store(0, Ordering::Release);
    }
}
