//! Calls that the front holds open for clients with sessions, so that these can cancel them (data-plane.md 10.2): a server
//! without sessions learns it by the end of its stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A call: client session and raw id. A client may use an id twice, against the rules: both calls run.
type Key = (Uuid, String);

#[derive(Default)]
struct Calls {
    next: u64,
    running: HashMap<Key, Vec<(u64, CancellationToken)>>,
}

/// Running calls.
#[derive(Clone, Default)]
pub struct RunningCalls {
    calls: Arc<Mutex<Calls>>,
}

/// One of them; it is forgotten when this is dropped.
pub struct RunningCall {
    calls: RunningCalls,
    key: Key,
    number: u64,
    /// Cancelled by the client.
    pub cancelled: CancellationToken,
}

impl RunningCalls {
    /// Remembers a call.
    pub fn begin(&self, session: Uuid, id: &str) -> RunningCall {
        let (key, cancelled) = ((session, id.to_owned()), CancellationToken::new());
        let mut number = 0;
        if let Ok(mut calls) = self.calls.lock() {
            calls.next += 1;
            number = calls.next;
            let same = calls.running.entry(key.clone()).or_default();
            same.push((number, cancelled.clone()));
        }
        RunningCall {
            calls: self.clone(),
            key,
            number,
            cancelled,
        }
    }

    /// Cancels what runs here under this id of this session.
    pub fn cancel(&self, session: Uuid, id: &str) {
        if let Ok(calls) = self.calls.lock() {
            let same = calls.running.get(&(session, id.to_owned()));
            same.into_iter().flatten().for_each(|(_, call)| call.cancel());
        }
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if let Ok(mut calls) = self.calls.calls.lock()
            && let Some(same) = calls.running.get_mut(&self.key)
        {
            same.retain(|(number, _)| *number != self.number);
            if same.is_empty() {
                calls.running.remove(&self.key);
            }
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
        assert!(calls.calls.lock().unwrap().running.is_empty());
    }

    #[test]
    fn d33_two_calls_under_one_id_are_both_cancelled_and_forgotten_one_by_one() {
        let (calls, session) = (RunningCalls::default(), Uuid::new_v4());
        let (first, second) = (calls.begin(session, "7"), calls.begin(session, "7"));
        drop(first);
        calls.cancel(session, "7");
        assert!(
            second.cancelled.is_cancelled(),
            "the end of the first is not its end"
        );
        let third = calls.begin(session, "7");
        assert!(!third.cancelled.is_cancelled());
        drop((second, third));
        assert!(calls.calls.lock().unwrap().running.is_empty());
    }
}
