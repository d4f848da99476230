//! Sessions of this process only, bounded: state and revocations last as long as the process (data-plane.md 12).

use super::links::Links;
use super::store::{BackendSession, Change, ELICITATION, Ended, Put, Record, SessionFacts, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::session_metrics::OpenBackends;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::time::Instant;
use uuid::Uuid;

/// Sessions remembered per replica (data-plane.md 15.1).
const MAX_SESSIONS: usize = 100_000;
const SHARDS: usize = 16;
/// Revocations may fill the store this many times over.
const REVOCATION_FACTOR: usize = 4;
/// Sessions that have a scope; past it a new one takes the place of the one that ends first.
const MAX_SCOPES: usize = 10_000;
/// Entries of the token page at once.
const MAX_ELICITATIONS: usize = 10_000;

#[derive(Default)]
struct Entry {
    expires: u64,
    record: Record,
}

type Shard = HashMap<Uuid, Entry>;

/// The store. Only sessions that have something to remember take space.
pub struct MemoryStore {
    shards: [Mutex<Shard>; SHARDS],
    limit_per_shard: usize,
    scopes: AtomicUsize,
    max_scopes: usize,
    elicitations: Mutex<HashMap<Uuid, (Instant, String)>>,
    links: Mutex<Links>,
    open: OpenBackends,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_limits(MAX_SESSIONS, MAX_SCOPES)
    }
}

impl MemoryStore {
    /// A store for at most so many sessions, and so many of them with a scope.
    pub fn with_limits(sessions: usize, scopes: usize) -> Self {
        Self {
            shards: Default::default(),
            limit_per_shard: sessions.div_ceil(SHARDS),
            scopes: AtomicUsize::new(0),
            max_scopes: scopes,
            elicitations: Mutex::default(),
            links: Mutex::default(),
            open: OpenBackends::default(),
        }
    }

    /// The store with its backend sessions counted there.
    pub(super) fn counting(self, metrics: &Metrics) -> Self {
        let open = metrics.sessions.backends.clone();
        Self { open, ..self }
    }

    fn with<T>(&self, jti: Uuid, act: impl FnOnce(&mut Shard) -> T) -> Result<T, StoreError> {
        let at = usize::from(jti.as_bytes()[15]) % SHARDS;
        let shard = self.shards.get(at).ok_or(StoreError::Unavailable)?;
        shard
            .lock()
            .map(|mut entries| act(&mut entries))
            .map_err(|_| StoreError::Unavailable)
    }

    fn entry<'a>(
        &self,
        entries: &'a mut Shard,
        jti: Uuid,
        expires: u64,
    ) -> Result<&'a mut Entry, StoreError> {
        if entries.len() >= self.limit_per_shard && !entries.contains_key(&jti) {
            return Err(StoreError::Full);
        }
        let entry = entries.entry(jti).or_default();
        entry.expires = expires;
        Ok(entry)
    }

    pub(super) fn facts(&self, jti: Uuid, server: &str) -> Result<SessionFacts, StoreError> {
        self.with(jti, |entries| match entries.get(&jti) {
            None => SessionFacts::default(),
            Some(entry) => entry.record.facts(server),
        })
    }

    pub(super) fn record(&self, jti: Uuid) -> Result<Record, StoreError> {
        self.with(jti, |entries| {
            entries
                .get(&jti)
                .map(|entry| entry.record.clone())
                .unwrap_or_default()
        })
    }

    pub(super) fn put(
        &self,
        jti: Uuid,
        expires: u64,
        server: &str,
        backend: &BackendSession,
    ) -> Result<Put, StoreError> {
        self.with(jti, |entries| {
            let record = &mut self.entry(entries, jti, expires)?.record;
            if record.revoked {
                return Ok(Put::Ended);
            }
            if let Some(known) = record.backends.get(server) {
                return Ok(Put::Taken(known.clone()));
            }
            record.backends.insert(server.to_owned(), backend.clone());
            self.open.opened(server);
            Ok(Put::Stored)
        })?
    }

    pub(super) fn forget(&self, jti: Uuid, server: &str, backend: &BackendSession) -> Result<(), StoreError> {
        self.with(jti, |entries| {
            if let Some(Entry { record, .. }) = entries.get_mut(&jti)
                && record.backends.get(server) == Some(backend)
            {
                record.backends.remove(server);
                self.open.closed(server);
                // Nothing is left to remember: the session of one call that is over.
                if *record == Record::default() {
                    entries.remove(&jti);
                }
            }
        })
    }

    pub(super) fn add_links(
        &self,
        jti: Uuid,
        expires: u64,
        links: (&str, &[String]),
    ) -> Result<(), StoreError> {
        let revoked = self.with(jti, |entries| {
            entries.get(&jti).is_some_and(|entry| entry.record.revoked)
        })?;
        let mut known = self.links.lock().map_err(|_| StoreError::Unavailable)?;
        if !revoked {
            known.add(jti, expires, links);
        }
        Ok(())
    }

    pub(super) fn link(&self, jti: Uuid, uri: &str) -> Result<Option<String>, StoreError> {
        let links = self.links.lock().map_err(|_| StoreError::Unavailable)?;
        Ok(links.find(jti, uri))
    }

    pub(super) fn revoke(&self, jti: Uuid, expires: u64) -> Result<Ended, StoreError> {
        if let Ok(mut links) = self.links.lock() {
            links.forget(jti);
        }
        self.with(jti, |entries| {
            // A revocation finds room beyond the bound: refusing it would keep a session alive that its owner ended.
            let room = self.limit_per_shard.saturating_mul(REVOCATION_FACTOR);
            if entries.len() >= room && !entries.contains_key(&jti) {
                return Err(StoreError::Full);
            }
            let entry = entries.entry(jti).or_default();
            entry.expires = expires;
            let ended = Record {
                revoked: true,
                ..Record::default()
            };
            let before = std::mem::replace(&mut entry.record, ended);
            self.uncount(&before);
            before.backends.keys().for_each(|server| self.open.closed(server));
            Ok((!before.revoked).then(|| before.backends.into_iter().collect()))
        })?
    }

    pub(super) fn change(&self, jti: Uuid, expires: u64, change: Change) -> Result<Record, StoreError> {
        if matches!(change, Change::Scope(Some(_))) && self.scopes.load(Ordering::Relaxed) >= self.max_scopes
        {
            self.drop_oldest_scope();
        }
        self.with(jti, |entries| {
            let record = &mut self.entry(entries, jti, expires)?.record;
            if record.revoked {
                return Ok(record.clone());
            }
            match change {
                Change::Level(level) => record.level = Some(level),
                Change::Token(server, Some(token)) => drop(record.tokens.insert(server, token)),
                Change::Token(server, None) => drop(record.tokens.remove(&server)),
                Change::Last(server) => record.last = Some(server),
                Change::Subscribed(subscription, true) => drop(record.subscriptions.insert(subscription)),
                Change::Subscribed(subscription, false) => drop(record.subscriptions.remove(&subscription)),
                Change::Scope(scope) => {
                    self.uncount(record);
                    self.scopes
                        .fetch_add(usize::from(scope.is_some()), Ordering::Relaxed);
                    record.scope = scope.map(Arc::new);
                }
            }
            Ok(record.clone())
        })?
    }

    fn uncount(&self, record: &Record) {
        self.scopes
            .fetch_sub(usize::from(record.scope.is_some()), Ordering::Relaxed);
    }

    /// Takes the scope of the session that ends first: its list is whole again.
    fn drop_oldest_scope(&self) {
        let mut oldest: Option<(u64, Uuid)> = None;
        for shard in &self.shards {
            let Ok(entries) = shard.lock() else { continue };
            let scoped = entries.iter().filter(|(_, entry)| entry.record.scope.is_some());
            let first = scoped.map(|(jti, entry)| (entry.expires, *jti)).min();
            oldest = [oldest, first].into_iter().flatten().min();
        }
        if let Some((_, jti)) = oldest {
            let _ = self.with(jti, |entries| {
                if let Some(entry) = entries.get_mut(&jti)
                    && entry.record.scope.take().is_some()
                {
                    self.scopes.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    }

    pub(super) fn put_elicitation(&self, id: Uuid, entry: String) -> Result<(), StoreError> {
        let mut entries = self.elicitations.lock().map_err(|_| StoreError::Unavailable)?;
        let now = Instant::now();
        if entries.len() >= MAX_ELICITATIONS {
            entries.retain(|_, (end, _)| *end > now);
        }
        if entries.len() >= MAX_ELICITATIONS {
            return Err(StoreError::Full);
        }
        entries.insert(id, (now + ELICITATION, entry));
        Ok(())
    }

    pub(super) fn elicitation(&self, id: Uuid, claim: bool) -> Result<Option<String>, StoreError> {
        let mut entries = self.elicitations.lock().map_err(|_| StoreError::Unavailable)?;
        let found = if claim {
            entries.remove(&id)
        } else {
            entries.get(&id).cloned()
        };
        Ok(found
            .filter(|(end, _)| *end > Instant::now())
            .map(|(_, entry)| entry))
    }

    /// Drops what has expired and returns the backend sessions that end with it.
    pub(super) fn sweep(&self, now: u64) -> Vec<(Uuid, String, BackendSession)> {
        let mut ended = Vec::new();
        for shard in &self.shards {
            let Ok(mut entries) = shard.lock() else { continue };
            entries.retain(|jti, entry| {
                if entry.expires > now {
                    return true;
                }
                self.uncount(&entry.record);
                for (server, backend) in std::mem::take(&mut entry.record.backends) {
                    self.open.closed(&server);
                    ended.push((*jti, server, backend));
                }
                false
            });
            entries.shrink_to_fit();
        }
        if let Ok(mut links) = self.links.lock() {
            links.sweep(now);
        }
        if let Ok(mut entries) = self.elicitations.lock() {
            entries.retain(|_, (end, _)| *end > Instant::now());
            entries.shrink_to_fit();
        }
        ended
    }

    pub(super) fn is_full(&self) -> bool {
        self.shards.iter().any(|shard| {
            shard
                .lock()
                .is_ok_and(|entries| entries.len() >= self.limit_per_shard)
        })
    }

    pub(super) fn scoped(&self) -> usize {
        self.scopes.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: &str) -> BackendSession {
        BackendSession {
            id: Some(id.to_owned()),
            version: "2025-11-25".to_owned(),
            logging: false,
        }
    }

    #[test]
    fn d14_an_ended_session_stays_ended_and_takes_nothing() {
        let store = MemoryStore::default();
        let jti = Uuid::new_v4();
        assert_eq!(store.put(jti, 100, "a", &backend("1")), Ok(Put::Stored));
        assert_eq!(
            store.revoke(jti, 100).unwrap().unwrap(),
            [("a".to_owned(), backend("1"))]
        );
        assert_eq!(store.revoke(jti, 100).unwrap(), None);
        assert_eq!(store.put(jti, 100, "a", &backend("2")), Ok(Put::Ended));
        let level = store.change(jti, 100, Change::Level("debug".to_owned())).unwrap();
        assert_eq!((level.revoked, level.level), (true, None));
        assert!(store.facts(jti, "a").unwrap().revoked);
    }

    #[test]
    fn d22_nothing_survives_its_session() {
        let store = MemoryStore::default();
        for _ in 0..1000 {
            let jti = Uuid::new_v4();
            store.put(jti, 100, "a", &backend("1")).unwrap();
            store
                .change(jti, 100, Change::Token("a".to_owned(), Some("x".to_owned())))
                .unwrap();
            store
                .change(jti, 100, Change::Scope(Some(vec!["x".to_owned()])))
                .unwrap();
        }
        assert_eq!((store.sweep(99).len(), store.scoped()), (0, 1000));
        assert_eq!(store.sweep(100).len(), 1000);
        assert_eq!((store.len(), store.scoped()), (0, 0));
    }

    #[test]
    fn only_the_backend_session_that_failed_is_forgotten() {
        let store = MemoryStore::default();
        let jti = Uuid::new_v4();
        store.put(jti, 100, "a", &backend("2")).unwrap();
        assert_eq!(
            store.put(jti, 100, "a", &backend("3")),
            Ok(Put::Taken(backend("2")))
        );
        store.forget(jti, "a", &backend("1")).unwrap();
        assert_eq!(store.facts(jti, "a").unwrap().backend, Some(backend("2")));
        store.forget(jti, "a", &backend("2")).unwrap();
        assert_eq!(store.facts(jti, "a").unwrap().backend, None);
        assert_eq!(
            store.len(),
            0,
            "nothing is left of a session that remembers nothing"
        );
    }

    #[test]
    fn s23_the_store_has_its_bound() {
        let store = MemoryStore::with_limits(16, 10);
        let mut refused = 0;
        for _ in 0..100 {
            refused +=
                usize::from(store.put(Uuid::new_v4(), 100, "a", &backend("1")) == Err(StoreError::Full));
        }
        assert!(refused >= 84 && store.len() <= 16);
    }

    #[test]
    fn s23_past_the_bound_of_scopes_the_session_that_ends_first_loses_its_own() {
        let store = MemoryStore::with_limits(1000, 3);
        let sessions: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
        let scope = || Change::Scope(Some(vec!["x".to_owned()]));
        for (jti, expires) in sessions.iter().zip([50, 40, 60, 70]) {
            store.change(*jti, expires, scope()).unwrap();
        }
        let scoped: Vec<bool> = sessions
            .iter()
            .map(|jti| store.record(*jti).unwrap().scope.is_some())
            .collect();
        assert_eq!((scoped, store.scoped()), (vec![true, false, true, true], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn s15_an_elicitation_entry_is_claimed_once_and_lives_two_minutes() {
        let store = MemoryStore::default();
        let (id, late) = (Uuid::new_v4(), Uuid::new_v4());
        store.put_elicitation(id, "x".to_owned()).unwrap();
        assert_eq!(store.elicitation(id, false).unwrap().as_deref(), Some("x"));
        assert_eq!(store.elicitation(id, true).unwrap().as_deref(), Some("x"));
        assert_eq!(store.elicitation(id, true).unwrap(), None);
        store.put_elicitation(late, "x".to_owned()).unwrap();
        tokio::time::advance(ELICITATION).await;
        assert_eq!(store.elicitation(late, true).unwrap(), None);
    }
}
