//! What the shared store said within the last two seconds. Bounded; an entry that another replica changes is forgotten by
//! its event. An answer that was on its way while an event came is not kept.

use super::store::Record;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Local entries per replica (data-plane.md 15.1).
const LIMIT: usize = 100_000;
const LIFE: Duration = Duration::from_secs(2);
const SHARDS: usize = 16;

type Shard = HashMap<Uuid, (Instant, Arc<Record>)>;

/// The cache.
pub(super) struct Recent {
    shards: [Mutex<Shard>; SHARDS],
    limit_per_shard: usize,
    /// Counts what was forgotten.
    changes: AtomicU64,
}

/// The moment before a question to the store.
#[derive(Clone, Copy)]
pub(super) struct Ticket(u64);

impl Default for Recent {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Recent {
    fn with_limit(limit: usize) -> Self {
        Self {
            shards: Default::default(),
            limit_per_shard: limit.div_ceil(SHARDS),
            changes: AtomicU64::new(0),
        }
    }

    fn shard(&self, jti: Uuid) -> Option<std::sync::MutexGuard<'_, Shard>> {
        let at = usize::from(jti.as_bytes()[15]) % SHARDS;
        self.shards.get(at)?.lock().ok()
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.changes.load(Ordering::Acquire))
    }

    pub(super) fn get(&self, jti: Uuid) -> Option<Arc<Record>> {
        let shard = self.shard(jti)?;
        let (end, record) = shard.get(&jti)?;
        (*end > Instant::now()).then(|| Arc::clone(record))
    }

    pub(super) fn put(&self, jti: Uuid, record: Arc<Record>, ticket: Ticket) {
        let Some(mut shard) = self.shard(jti) else { return };
        if self.changes.load(Ordering::Acquire) != ticket.0 {
            return;
        }
        let now = Instant::now();
        if shard.len() >= self.limit_per_shard && !shard.contains_key(&jti) {
            shard.retain(|_, (end, _)| *end > now);
        }
        if shard.len() >= self.limit_per_shard
            && let Some(oldest) = shard.iter().min_by_key(|(_, (end, _))| *end).map(|(jti, _)| *jti)
        {
            shard.remove(&oldest);
        }
        shard.insert(jti, (now + LIFE, record));
    }

    pub(super) fn forget(&self, jti: Uuid) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        if let Some(mut shard) = self.shard(jti) {
            shard.remove(&jti);
        }
    }

    pub(super) fn clear(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            if let Ok(mut shard) = shard.lock() {
                shard.clear();
            }
        }
    }

    pub(super) fn sweep(&self) {
        let now = Instant::now();
        for shard in &self.shards {
            if let Ok(mut shard) = shard.lock() {
                shard.retain(|_, (end, _)| *end > now);
                shard.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_entry_lives_two_seconds() {
        let recent = Recent::default();
        let jti = Uuid::new_v4();
        recent.put(jti, Arc::default(), recent.ticket());
        tokio::time::advance(LIFE - Duration::from_millis(1)).await;
        assert!(recent.get(jti).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(recent.get(jti).is_none());
    }

    #[test]
    fn what_was_asked_before_a_change_is_not_kept() {
        let recent = Recent::default();
        let jti = Uuid::new_v4();
        let ticket = recent.ticket();
        recent.forget(jti);
        recent.put(jti, Arc::default(), ticket);
        assert!(recent.get(jti).is_none());
    }

    #[test]
    fn s23_the_cache_has_its_bound() {
        let recent = Recent::with_limit(SHARDS);
        for _ in 0..100 {
            recent.put(Uuid::new_v4(), Arc::default(), recent.ticket());
        }
        let kept: usize = recent
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!((1..=SHARDS).contains(&kept), "{kept}");
    }
}
