//! Who wants to know that something about a client session changed in this process: a backend session was opened, a resource
//! subscribed to, a log level set. Without a watcher nothing is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use uuid::Uuid;

/// Watchers by session.
#[derive(Default)]
pub struct Watchers {
    waiting: Mutex<HashMap<Uuid, Arc<Notify>>>,
}

/// A watch; it ends when it is dropped.
pub struct Watch {
    watchers: Arc<Watchers>,
    jti: Uuid,
    notify: Arc<Notify>,
}

impl Watchers {
    /// Watches a session. A later watch of the same session replaces this one.
    pub fn watch(self: &Arc<Self>, jti: Uuid) -> Watch {
        let notify = Arc::new(Notify::new());
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert(jti, Arc::clone(&notify));
        }
        Watch {
            watchers: Arc::clone(self),
            jti,
            notify,
        }
    }

    /// Something about the session changed.
    pub fn touch(&self, jti: Uuid) {
        if let Ok(waiting) = self.waiting.lock()
            && let Some(notify) = waiting.get(&jti)
        {
            notify.notify_one();
        }
    }
}

impl Watch {
    /// Waits for a change; one that came before is not lost.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.watchers.waiting.lock()
            && waiting
                .get(&self.jti)
                .is_some_and(|notify| Arc::ptr_eq(notify, &self.notify))
        {
            waiting.remove(&self.jti);
        }
    }
}
