//! Calls that the front holds open for clients with sessions, so that these can cancel them (data-plane.md 10.2): a server
//! without sessions learns it by the end of its stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A call: client session and raw id.
type Key = (Uuid, String);

/// Running calls.
#[derive(Clone, Default)]
pub struct RunningCalls {
    calls: Arc<Mutex<HashMap<Key, CancellationToken>>>,
}

/// One of them; it is forgotten when this is dropped.
pub struct RunningCall {
    calls: RunningCalls,
    key: Key,
    /// Cancelled by the client.
    pub cancelled: CancellationToken,
}

impl RunningCalls {
    /// Remembers a call.
    pub fn begin(&self, session: Uuid, id: &str) -> RunningCall {
        let (key, cancelled) = ((session, id.to_owned()), CancellationToken::new());
        if let Ok(mut calls) = self.calls.lock() {
            calls.insert(key.clone(), cancelled.clone());
        }
        RunningCall {
            calls: self.clone(),
            key,
            cancelled,
        }
    }

    /// Cancels a call of this session, if it runs here.
    pub fn cancel(&self, session: Uuid, id: &str) {
        if let Ok(calls) = self.calls.lock()
            && let Some(call) = calls.get(&(session, id.to_owned()))
        {
            call.cancel();
        }
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if let Ok(mut calls) = self.calls.calls.lock() {
            calls.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d33_only_the_call_of_the_session_is_cancelled() {
        let calls = RunningCalls::default();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let (mine, other) = (calls.begin(one, "7"), calls.begin(two, "7"));
        calls.cancel(one, "8");
        assert!(!mine.cancelled.is_cancelled());
        calls.cancel(one, "7");
        assert!(mine.cancelled.is_cancelled() && !other.cancelled.is_cancelled());
        drop((mine, other));
        assert!(calls.calls.lock().unwrap().is_empty());
    }
}
