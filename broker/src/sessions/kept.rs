//! Calls that may have to be sent once more (data-plane.md 8.8): what came with them, kept for some seconds in this process,
//! because a server says only with its reply that it has lost the session.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Largest body that is kept.
pub const MAX_BODY: usize = 256 * 1024;
/// A server that has lost a session says so at once.
const KEPT: Duration = Duration::from_secs(10);
const SHARDS: usize = 16;
/// Bytes of bodies and headers in one shard; the oldest make room.
const SHARD_BYTES: usize = 2 * 1024 * 1024;

/// A call as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct KeptCall {
    /// Client session.
    pub jti: Uuid,
    /// Host that the client used.
    pub host: String,
    /// Headers. They hold credentials and are never shown.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Shard {
    calls: VecDeque<(Instant, u64, KeptCall)>,
    bytes: usize,
}

/// The calls of the last seconds.
pub struct KeptCalls {
    shards: [Mutex<Shard>; SHARDS],
    next: AtomicU64,
}

impl Default for KeptCalls {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            // Numbers of one process mean nothing in another.
            next: AtomicU64::new(rand::random()),
        }
    }
}

impl KeptCall {
    fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len());
        self.body.len() + fields.sum::<usize>()
    }
}

impl KeptCalls {
    /// A number for a call that will be kept.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, number: u64) -> Option<&Mutex<Shard>> {
        self.shards.get(usize::try_from(number % SHARDS as u64).ok()?)
    }

    /// Keeps a call under its number.
    pub fn keep(&self, number: u64, call: KeptCall) {
        let Some(mut shard) = self.shard(number).and_then(|shard| shard.lock().ok()) else {
            return;
        };
        let now = Instant::now();
        shard.bytes += call.size();
        shard.calls.push_back((now, number, call));
        while let Some((since, _, oldest)) = shard.calls.front() {
            if now.duration_since(*since) < KEPT && shard.bytes <= SHARD_BYTES {
                break;
            }
            shard.bytes -= oldest.size();
            shard.calls.pop_front();
        }
    }

    /// Takes the call of this session out, once.
    pub fn take(&self, number: u64, jti: Uuid) -> Option<KeptCall> {
        let mut shard = self.shard(number)?.lock().ok()?;
        let is_it = |(_, known, call): &(_, u64, KeptCall)| *known == number && call.jti == jti;
        let at = shard.calls.iter().position(is_it)?;
        let (_, _, call) = shard.calls.remove(at)?;
        shard.bytes -= call.size();
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(jti: Uuid, size: usize) -> KeptCall {
        KeptCall {
            jti,
            host: "h".to_owned(),
            fields: Vec::new(),
            body: vec![b'x'; size],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_taken_once_by_its_session_and_within_seconds() {
        let (kept, jti) = (KeptCalls::default(), Uuid::new_v4());
        let number = kept.number();
        kept.keep(number, call(jti, 7));
        assert_eq!(kept.take(number, Uuid::new_v4()), None);
        assert_eq!(kept.take(number, jti), Some(call(jti, 7)));
        assert_eq!(kept.take(number, jti), None);
        kept.keep(number, call(jti, 7));
        tokio::time::advance(KEPT).await;
        kept.keep(number + SHARDS as u64, call(jti, 1));
        assert_eq!(kept.take(number, jti), None);
    }

    #[tokio::test]
    async fn s23_the_oldest_calls_make_room() {
        let (kept, jti) = (KeptCalls::default(), Uuid::new_v4());
        let numbers: Vec<u64> = (0..10).map(|at| at * SHARDS as u64).collect();
        for number in &numbers {
            kept.keep(*number, call(jti, MAX_BODY));
        }
        let found: Vec<bool> = numbers
            .iter()
            .map(|number| kept.take(*number, jti).is_some())
            .collect();
        assert_eq!(
            found.iter().filter(|found| **found).count(),
            SHARD_BYTES / MAX_BODY
        );
        assert!(!found[0] && found[9], "the youngest stay");
        assert_eq!(kept.shards[0].lock().unwrap().bytes, 0);
    }
}
