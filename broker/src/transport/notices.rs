//! Change notices of one server: one slot per kind, however often the server sends them.

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
}

impl Notices {
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
