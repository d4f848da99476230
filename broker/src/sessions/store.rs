//! What outlives a request about a client session (data-plane.md 12): backend sessions and revocations. The trait is
//! small so that a shared store can replace the bounded in-process one.

use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Mutex;
use uuid::Uuid;

/// A backend session: what is sent to one MCP server on behalf of one client session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSession {
    /// `Mcp-Session-Id` of the server; `None` when the server issues none, which is a value too (D20).
    pub id: Option<String>,
    /// Version that the server negotiated.
    pub version: String,
    /// The server offers logging.
    pub logging: bool,
}

/// What one lookup gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// The session was ended.
    pub revoked: bool,
    /// Backend session with the server asked for.
    pub backend: Option<BackendSession>,
    /// Log level that the client set.
    pub level: Option<String>,
    /// Name of the server that the session called last.
    pub last: Option<String>,
}

/// A resource that a session subscribed to: server name and the server's own URI.
pub type Subscription = (String, String);

/// The store failed or is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer.
    #[error("session store unavailable")]
    Unavailable,
    /// The bound of the in-process store is reached.
    #[error("too many sessions")]
    Full,
}

/// Backend sessions by server name of a client session that ended; `None` when it had ended before.
pub type Ended = Option<Vec<(String, BackendSession)>>;

/// Operations on sessions. `expires` is the end of the client session in Unix seconds: every entry ends with it (D23).
pub trait SessionStore: Send + Sync {
    /// Revocation and the backend session with `server`, in one round trip.
    fn facts<'a>(&'a self, jti: Uuid, server: &'a str) -> BoxFuture<'a, Result<SessionFacts, StoreError>>;
    /// Remembers a backend session, unless the client session was ended meanwhile: then `false`.
    fn put<'a>(
        &'a self,
        jti: Uuid,
        expires: u64,
        server: &'a str,
        backend: BackendSession,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;
    /// Forgets a backend session if it is still this one.
    fn forget<'a>(
        &'a self,
        jti: Uuid,
        server: &'a str,
        backend: &'a BackendSession,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Ends a client session and returns its backend sessions; `None` when it was ended before.
    fn revoke(&self, jti: Uuid, expires: u64) -> BoxFuture<'_, Result<Ended, StoreError>>;
    /// Remembers the log level of a session and returns its backend sessions by server name.
    fn set_level(
        &self,
        jti: Uuid,
        expires: u64,
        level: String,
    ) -> BoxFuture<'_, Result<Vec<(String, BackendSession)>, StoreError>>;
    /// Remembers the server that the session called last: it owns the event ids that are not ours (data-plane.md 4.6).
    fn set_last<'a>(
        &'a self,
        jti: Uuid,
        expires: u64,
        server: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Remembers or forgets (`on` is false) a subscription; at most [`MAX_SUBSCRIPTIONS`] of a session, then `Full`.
    fn subscribe(
        &self,
        jti: Uuid,
        expires: u64,
        subscription: Subscription,
        on: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What a session subscribed to.
    fn subscriptions(&self, jti: Uuid) -> BoxFuture<'_, Result<Vec<Subscription>, StoreError>>;
    /// The backend sessions of a session by server name.
    fn backends(&self, jti: Uuid) -> BoxFuture<'_, Result<Vec<(String, BackendSession)>, StoreError>>;
    /// Room for another session?
    fn is_full(&self) -> bool;
}

/// Resources that one session may be subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 1000;
/// Sessions remembered per replica (data-plane.md 15.1).
const MAX_SESSIONS: usize = 100_000;
const SHARDS: usize = 16;
/// Revocations may fill the store this many times over.
const REVOCATION_FACTOR: usize = 4;

#[derive(Default)]
struct Entry {
    expires: u64,
    revoked: bool,
    level: Option<String>,
    last: Option<String>,
    subscriptions: Vec<Subscription>,
    backends: Vec<(String, BackendSession)>,
}

/// Sessions of this process only. Only sessions that have something to remember take space.
pub struct MemoryStore {
    shards: [Mutex<HashMap<Uuid, Entry>>; SHARDS],
    limit_per_shard: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_limit(MAX_SESSIONS)
    }
}

impl MemoryStore {
    /// A store for at most `limit` sessions.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            shards: Default::default(),
            limit_per_shard: limit.div_ceil(SHARDS),
        }
    }

    fn with<T>(&self, jti: Uuid, act: impl FnOnce(&mut HashMap<Uuid, Entry>) -> T) -> Result<T, StoreError> {
        let at = usize::from(jti.as_bytes()[15]) % SHARDS;
        let shard = self.shards.get(at).ok_or(StoreError::Unavailable)?;
        shard
            .lock()
            .map(|mut entries| act(&mut entries))
            .map_err(|_| StoreError::Unavailable)
    }

    fn entry<'a>(
        &self,
        entries: &'a mut HashMap<Uuid, Entry>,
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

    /// Drops what has expired and returns the backend sessions that end with it.
    pub fn sweep(&self, now: u64) -> Vec<(Uuid, String, BackendSession)> {
        let mut ended = Vec::new();
        for shard in &self.shards {
            let Ok(mut entries) = shard.lock() else { continue };
            entries.retain(|jti, entry| {
                let live = entry.expires > now;
                if !live {
                    ended.extend(
                        entry
                            .backends
                            .drain(..)
                            .map(|(server, backend)| (*jti, server, backend)),
                    );
                }
                live
            });
            entries.shrink_to_fit();
        }
        ended
    }

    /// Sessions that are remembered.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().map_or(0, |entries| entries.len()))
            .sum()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl SessionStore for MemoryStore {
    fn facts<'a>(&'a self, jti: Uuid, server: &'a str) -> BoxFuture<'a, Result<SessionFacts, StoreError>> {
        ready(self.with(jti, |entries| {
            match entries.get(&jti) {
                None => SessionFacts::default(),
                Some(entry) => SessionFacts {
                    revoked: entry.revoked,
                    backend: entry
                        .backends
                        .iter()
                        .find(|(name, _)| name == server)
                        .map(|(_, backend)| backend.clone()),
                    level: entry.level.clone(),
                    last: entry.last.clone(),
                },
            }
        }))
    }

    fn put<'a>(
        &'a self,
        jti: Uuid,
        expires: u64,
        server: &'a str,
        backend: BackendSession,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let put = self.with(jti, |entries| {
            let entry = self.entry(entries, jti, expires)?;
            if entry.revoked {
                return Ok(false);
            }
            entry.backends.retain(|(name, _)| name != server);
            entry.backends.push((server.to_owned(), backend));
            Ok(true)
        });
        ready(put.flatten())
    }

    fn forget<'a>(
        &'a self,
        jti: Uuid,
        server: &'a str,
        backend: &'a BackendSession,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(self.with(jti, |entries| {
            if let Some(entry) = entries.get_mut(&jti) {
                entry
                    .backends
                    .retain(|(name, known)| name != server || known != backend);
            }
        }))
    }

    fn revoke(&self, jti: Uuid, expires: u64) -> BoxFuture<'_, Result<Ended, StoreError>> {
        let revoked = self.with(jti, |entries| {
            // A revocation finds room beyond the bound: refusing it would keep a session alive that its owner ended.
            let room = self.limit_per_shard.saturating_mul(REVOCATION_FACTOR);
            if entries.len() >= room && !entries.contains_key(&jti) {
                return Err(StoreError::Full);
            }
            let entry = entries.entry(jti).or_default();
            entry.expires = expires;
            let ended_before = std::mem::replace(&mut entry.revoked, true);
            Ok((!ended_before).then(|| std::mem::take(&mut entry.backends)))
        });
        ready(revoked.flatten())
    }

    fn set_level(
        &self,
        jti: Uuid,
        expires: u64,
        level: String,
    ) -> BoxFuture<'_, Result<Vec<(String, BackendSession)>, StoreError>> {
        let set = self.with(jti, |entries| {
            let entry = self.entry(entries, jti, expires)?;
            entry.level = Some(level);
            Ok(entry.backends.clone())
        });
        ready(set.flatten())
    }

    fn set_last<'a>(
        &'a self,
        jti: Uuid,
        expires: u64,
        server: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let set = self.with(jti, |entries| {
            self.entry(entries, jti, expires)?.last = Some(server.to_owned());
            Ok(())
        });
        ready(set.flatten())
    }

    fn subscribe(
        &self,
        jti: Uuid,
        expires: u64,
        subscription: Subscription,
        on: bool,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let done = self.with(jti, |entries| {
            let entry = self.entry(entries, jti, expires)?;
            entry.subscriptions.retain(|known| *known != subscription);
            if on && entry.subscriptions.len() >= MAX_SUBSCRIPTIONS {
                return Err(StoreError::Full);
            }
            entry.subscriptions.extend(on.then_some(subscription));
            Ok(())
        });
        ready(done.flatten())
    }

    fn subscriptions(&self, jti: Uuid) -> BoxFuture<'_, Result<Vec<Subscription>, StoreError>> {
        ready(self.with(jti, |entries| {
            entries
                .get(&jti)
                .map(|entry| entry.subscriptions.clone())
                .unwrap_or_default()
        }))
    }

    fn backends(&self, jti: Uuid) -> BoxFuture<'_, Result<Vec<(String, BackendSession)>, StoreError>> {
        ready(self.with(jti, |entries| {
            entries
                .get(&jti)
                .map(|entry| entry.backends.clone())
                .unwrap_or_default()
        }))
    }

    fn is_full(&self) -> bool {
        self.shards.iter().any(|shard| {
            shard
                .lock()
                .is_ok_and(|entries| entries.len() >= self.limit_per_shard)
        })
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

    #[tokio::test]
    async fn d14_an_ended_session_stays_ended_and_takes_no_backend() {
        let store = MemoryStore::default();
        let jti = Uuid::new_v4();
        assert!(store.put(jti, 100, "a", backend("1")).await.unwrap());
        assert_eq!(
            store.revoke(jti, 100).await.unwrap().unwrap(),
            [("a".to_owned(), backend("1"))]
        );
        assert_eq!(store.revoke(jti, 100).await.unwrap(), None);
        assert!(!store.put(jti, 100, "a", backend("2")).await.unwrap());
        assert!(store.facts(jti, "a").await.unwrap().revoked);
    }

    #[tokio::test]
    async fn d22_nothing_survives_its_session() {
        let store = MemoryStore::default();
        for _ in 0..1000 {
            store.put(Uuid::new_v4(), 100, "a", backend("1")).await.unwrap();
        }
        assert_eq!(store.sweep(99).len(), 0);
        assert_eq!(store.sweep(100).len(), 1000);
        assert!(store.is_empty());
    }

    #[tokio::test]
    async fn only_the_backend_session_that_failed_is_forgotten() {
        let store = MemoryStore::default();
        let jti = Uuid::new_v4();
        store.put(jti, 100, "a", backend("2")).await.unwrap();
        store.forget(jti, "a", &backend("1")).await.unwrap();
        assert_eq!(store.facts(jti, "a").await.unwrap().backend, Some(backend("2")));
        store.forget(jti, "a", &backend("2")).await.unwrap();
        assert_eq!(store.facts(jti, "a").await.unwrap().backend, None);
    }

    #[tokio::test]
    async fn the_last_server_and_the_subscriptions_of_a_session_are_remembered() {
        let store = MemoryStore::default();
        let jti = Uuid::new_v4();
        let of = |uri: &str| ("a".to_owned(), uri.to_owned());
        store.set_last(jti, 100, "a").await.unwrap();
        assert_eq!(store.facts(jti, "").await.unwrap().last.as_deref(), Some("a"));
        for uri in ["x", "y", "x"] {
            store.subscribe(jti, 100, of(uri), true).await.unwrap();
        }
        assert_eq!(store.subscriptions(jti).await.unwrap(), [of("y"), of("x")]);
        store.subscribe(jti, 100, of("y"), false).await.unwrap();
        assert_eq!(store.subscriptions(jti).await.unwrap(), [of("x")]);
        for at in 1..MAX_SUBSCRIPTIONS {
            store
                .subscribe(jti, 100, of(&at.to_string()), true)
                .await
                .unwrap();
        }
        let past = store.subscribe(jti, 100, of("past the bound"), true).await;
        assert_eq!(past, Err(StoreError::Full));
    }

    #[tokio::test]
    async fn s23_the_store_has_its_bound() {
        let store = MemoryStore::with_limit(16);
        let mut refused = 0;
        for _ in 0..100 {
            refused +=
                usize::from(store.put(Uuid::new_v4(), 100, "a", backend("1")).await == Err(StoreError::Full));
        }
        assert!(refused >= 84 && store.len() <= 16);
    }
}
