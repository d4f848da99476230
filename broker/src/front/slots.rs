//! How many calls run at once for one session and one server (data-plane.md 15.1, S23): whoever asks for more is told to
//! wait, and nobody else notices. Clients without a session count for the server only.

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use uuid::Uuid;

/// Calls of one session.
pub const OF_SESSION: u32 = 64;
/// Calls of one server.
pub const OF_SERVER: u32 = 1024;
/// Locks, so that calls seldom meet at one.
const SHARDS: usize = 32;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Session(Uuid),
    Server(String),
}

/// Counts of the running calls.
pub struct Slots {
    shards: Vec<Mutex<HashMap<Key, u32>>>,
    hasher: RandomState,
}

struct Slot {
    slots: Arc<Slots>,
    key: Key,
}

/// The right to run; it ends when it is dropped.
pub struct Running {
    _session: Option<Slot>,
    _server: Slot,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Slots {
    /// A slot for a call; `None` when as many run as may.
    pub fn take(self: &Arc<Self>, session: Option<Uuid>, server: &str) -> Option<Running> {
        let session = match session {
            Some(session) => Some(self.slot(Key::Session(session), OF_SESSION)?),
            None => None,
        };
        Some(Running {
            _session: session,
            _server: self.slot(Key::Server(server.to_owned()), OF_SERVER)?,
        })
    }

    fn slot(self: &Arc<Self>, key: Key, limit: u32) -> Option<Slot> {
        self.change(&key, |running| (running < limit).then_some(running + 1))
            .then(|| Slot {
                slots: Arc::clone(self),
                key,
            })
    }

    /// Sets a count to what `next` makes of it; false when it makes nothing. Counts of nothing are not kept.
    fn change(&self, key: &Key, next: impl Fn(u32) -> Option<u32>) -> bool {
        let shard = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        let Some(Ok(mut shard)) = self.shards.get(shard).map(Mutex::lock) else {
            return false;
        };
        match next(shard.get(key).copied().unwrap_or_default()) {
            Some(0) => drop(shard.remove(key)),
            Some(count) => drop(shard.insert(key.clone(), count)),
            None => return false,
        }
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots
            .change(&self.key, |running| Some(running.saturating_sub(1)));
    }
}

impl Running {
    /// The response, whose body keeps the slot until it is over or nobody reads it any more.
    pub fn until_over(self, response: Response) -> Response {
        response.map(|inner| {
            Body::new(Counted {
                inner,
                running: Some(self),
            })
        })
    }
}

struct Counted {
    inner: Body,
    running: Option<Running>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.running = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(slots: &Slots) -> bool {
        slots.shards.iter().all(|shard| shard.lock().unwrap().is_empty())
    }

    #[test]
    fn s23_a_session_runs_so_many_calls_and_others_go_on() {
        let slots = Arc::new(Slots::default());
        let (busy, other) = (Some(Uuid::new_v4()), Some(Uuid::new_v4()));
        let mut running: Vec<_> = (0..OF_SESSION).map(|_| slots.take(busy, "a").unwrap()).collect();
        assert!(slots.take(busy, "b").is_none());
        assert!(slots.take(other, "a").is_some() && slots.take(None, "a").is_some());
        running.pop();
        assert!(slots.take(busy, "b").is_some());
        drop(running);
        assert!(is_empty(&slots), "nothing stays");
    }

    #[test]
    fn s23_a_server_runs_so_many_calls_and_others_go_on() {
        let slots = Arc::new(Slots::default());
        let running: Vec<_> = (0..OF_SERVER).map(|_| slots.take(None, "a").unwrap()).collect();
        let session = Some(Uuid::new_v4());
        assert!(slots.take(session, "a").is_none());
        assert!(slots.take(session, "b").is_some());
        drop(running);
        assert!(is_empty(&slots), "the refused call left nothing either");
    }

    #[tokio::test]
    async fn s23_a_call_runs_until_its_reply_has_passed() {
        let slots = Arc::new(Slots::default());
        let reply = || Response::new(Body::from("x"));
        let passing = slots.take(None, "a").unwrap().until_over(reply());
        assert!(!is_empty(&slots));
        let bytes = axum::body::to_bytes(passing.into_body(), 10).await.unwrap();
        assert_eq!((bytes.as_ref(), is_empty(&slots)), (b"x".as_slice(), true));
        drop(slots.take(None, "a").unwrap().until_over(reply()));
        assert!(is_empty(&slots), "nobody reads it any more");
    }
}
