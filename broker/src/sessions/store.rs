//! What outlives a request about a client session (data-plane.md 12): backend sessions, revocation, log level, scope,
//! per-user tokens. One face over the in-process store (`memory`) and the shared one (`shared`): deadlines, metrics and
//! events are here, storage is there.

use super::alive::Alive;
use super::memory::MemoryStore;
use super::shared::SharedStore;
use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::time::timeout;
use uuid::Uuid;

pub use super::record::{
    BackendSession, Change, MAX_SUBSCRIBED, MAX_SUBSCRIPTIONS, Put, Record, SessionEvent, SessionFacts,
    StoreError, Subscription,
};

/// One operation of a shared store.
const DEADLINE: Duration = Duration::from_secs(1);
/// Events that a slow listener may be behind; past it, it is told that it missed some.
const EVENTS: usize = 1024;
/// Life of the lock around the opening of a backend session.
pub(super) const LOCK: Duration = Duration::from_secs(10);
/// Life of an entry of the token page (data-plane.md 11.5).
pub(super) const ELICITATION: Duration = Duration::from_secs(120);

/// Backend sessions by server name of a client session that ended; `None` when it had ended before.
pub type Ended = Option<Vec<(String, BackendSession)>>;

/// Right to open the backend session of a key; ends with [`SessionStore::unlock`] or by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct OpeningLock(pub(super) Uuid);

enum Backing {
    Memory(Box<MemoryStore>),
    Shared(Box<SharedStore>),
}

/// The store. `expires` is the end of the client session in Unix seconds: every entry ends with it (D23).
pub struct SessionStore {
    backing: Backing,
    metrics: Arc<Metrics>,
    alive: Alive,
    events: broadcast::Sender<SessionEvent>,
}

impl SessionStore {
    /// A store of this process.
    pub fn memory(store: MemoryStore, metrics: Arc<Metrics>) -> Self {
        let store = store.counting(&metrics);
        Self::over(Backing::Memory(Box::new(store)), metrics)
    }

    /// A store that all replicas share.
    pub fn shared(store: SharedStore, metrics: Arc<Metrics>) -> Self {
        let store = store.counting(&metrics);
        Self::over(Backing::Shared(Box::new(store)), metrics)
    }

    fn over(backing: Backing, metrics: Arc<Metrics>) -> Self {
        Self {
            backing,
            alive: Alive::new(Arc::clone(&metrics)),
            metrics,
            events: broadcast::Sender::new(EVENTS),
        }
    }

    /// Counts a client session that begins here.
    pub fn begun(&self, jti: Uuid, expires: u64) {
        self.alive.begun(jti, expires);
    }

    /// Counts a client session as ended if it began here, whoever ended it.
    pub fn ended(&self, jti: Uuid) {
        self.alive.ended(jti);
    }

    /// Events from now on, of this replica and of the others.
    pub fn events(&self) -> broadcast::Receiver<SessionEvent> {
        self.events.subscribe()
    }

    /// Tells the other replicas; one that does not hear of it counts less, no more.
    pub async fn tell(&self, event: SessionEvent) {
        if let Backing::Shared(store) = &self.backing {
            let _ = self.measured("tell", store.tell(event)).await;
        }
    }

    /// Brings the events of other replicas; never ends with a shared store, at once without one.
    pub async fn follow_events(&self) {
        if let Backing::Shared(store) = &self.backing {
            store.follow_events(&self.events).await;
        }
    }

    /// The session and its backend session and token with `server`, in at most one round trip. What is there may be up
    /// to 2 s old; that something is missing is always true.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn facts(&self, jti: Uuid, server: &str) -> Result<SessionFacts, StoreError> {
        let record = match &self.backing {
            Backing::Memory(store) => return store.facts(jti, server),
            Backing::Shared(store) => match store.recent(jti, server) {
                Some(record) => record,
                None => self.measured("facts", store.load(jti)).await?,
            },
        };
        Ok(record.facts(server))
    }

    /// The session as it is now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record(&self, jti: Uuid) -> Result<Arc<Record>, StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.record(jti).map(Arc::new),
            Backing::Shared(store) => self.measured("record", store.load(jti)).await,
        }
    }

    /// Takes the right to open the backend session of a key; `None` while somebody else has it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn lock(&self, jti: Uuid, server: &str) -> Result<Option<OpeningLock>, StoreError> {
        match &self.backing {
            // In one process the flights of the opener are the lock.
            Backing::Memory(_) => Ok(Some(OpeningLock(Uuid::nil()))),
            Backing::Shared(store) => self.measured("lock", store.lock(jti, server)).await,
        }
    }

    /// Gives that right back.
    pub async fn unlock(&self, jti: Uuid, server: &str, lock: OpeningLock) {
        if let Backing::Shared(store) = &self.backing {
            // A lock that cannot be given back ends by itself.
            let _ = self.measured("unlock", store.unlock(jti, server, &lock)).await;
        }
    }

    /// Remembers a backend session, unless there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(
        &self,
        jti: Uuid,
        expires: u64,
        server: &str,
        backend: &BackendSession,
    ) -> Result<Put, StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.put(jti, expires, server, backend),
            Backing::Shared(store) => {
                self.measured("put", store.put(jti, expires, server, backend))
                    .await
            }
        }
    }

    /// Forgets a backend session if it is still this one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn forget(&self, jti: Uuid, server: &str, backend: &BackendSession) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.forget(jti, server, backend),
            Backing::Shared(store) => self.measured("forget", store.forget(jti, server, backend)).await,
        }
    }

    /// Ends a client session and returns its backend sessions; `None` when it was ended before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(&self, jti: Uuid, expires: u64) -> Result<Ended, StoreError> {
        match &self.backing {
            Backing::Memory(store) => {
                let ended = store.revoke(jti, expires)?;
                let _ = self.events.send(SessionEvent::Ended(jti));
                Ok(ended)
            }
            Backing::Shared(store) => self.measured("revoke", store.revoke(jti, expires)).await,
        }
    }

    /// Changes one value and returns the session with it; a session that was ended takes none and says so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change(&self, jti: Uuid, expires: u64, change: Change) -> Result<Arc<Record>, StoreError> {
        match &self.backing {
            Backing::Memory(store) => {
                let event = change.event(jti);
                let record = store.change(jti, expires, change)?;
                let _ = event.map(|event| self.events.send(event));
                Ok(Arc::new(record))
            }
            Backing::Shared(store) => self.measured("change", store.change(jti, expires, change)).await,
        }
    }

    /// Remembers the server that the session called last; nothing is written when it is the same as before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_last(&self, jti: Uuid, expires: u64, server: &str) -> Result<(), StoreError> {
        if self.facts(jti, "").await?.last.as_deref() == Some(server) {
            return Ok(());
        }
        let last = Change::Last(server.to_owned());
        self.change(jti, expires, last).await.map(drop)
    }

    /// Whether other replicas find what is kept here.
    pub fn is_shared(&self) -> bool {
        matches!(self.backing, Backing::Shared(_))
    }

    /// Remembers or forgets (`on` is false) a subscription; past [`MAX_SUBSCRIPTIONS`] of a session, or
    /// [`MAX_SUBSCRIBED`] bytes of them, none is taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subscribe(
        &self,
        jti: Uuid,
        expires: u64,
        subscription: Subscription,
        on: bool,
    ) -> Result<(), StoreError> {
        if on {
            let record = self.record(jti).await?;
            let known = &record.subscriptions;
            let bytes: usize = known.iter().map(|(_, uri)| uri.len()).sum();
            let room = known.len() < MAX_SUBSCRIPTIONS && bytes + subscription.1.len() <= MAX_SUBSCRIBED;
            if !room && !known.contains(&subscription) {
                return Err(StoreError::Full);
            }
        }
        let change = Change::Subscribed(subscription, on);
        self.change(jti, expires, change).await.map(drop)
    }

    /// Notes links to these URIs that the session received from a server; of more than a thousand the last ones stay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn add_links(
        &self,
        jti: Uuid,
        expires: u64,
        links: (&str, &[String]),
    ) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.add_links(jti, expires, links),
            Backing::Shared(store) => self.measured("links", store.add_links(jti, expires, links)).await,
        }
    }

    /// The server from which the session received a link to this URI last.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn link(&self, jti: Uuid, uri: &str) -> Result<Option<String>, StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.link(jti, uri),
            Backing::Shared(store) => self.measured("link", store.link(jti, uri)).await,
        }
    }

    /// What a session subscribed to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn subscriptions(&self, jti: Uuid) -> Result<Vec<Subscription>, StoreError> {
        let record = self.record(jti).await?;
        Ok(record.subscriptions.iter().cloned().collect())
    }

    /// The backend sessions of a session by server name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn backends(&self, jti: Uuid) -> Result<Vec<(String, BackendSession)>, StoreError> {
        let record = self.record(jti).await?;
        Ok(record.backends.clone().into_iter().collect())
    }

    /// Keeps an entry of the token page for two minutes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_elicitation(&self, id: Uuid, entry: String) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.put_elicitation(id, entry),
            Backing::Shared(store) => {
                self.measured("elicitation", store.put_elicitation(id, entry))
                    .await
            }
        }
    }

    /// Reads an entry of the token page; with `claim` it is gone afterwards, and only one caller gets it (S15).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn elicitation(&self, id: Uuid, claim: bool) -> Result<Option<String>, StoreError> {
        match &self.backing {
            Backing::Memory(store) => store.elicitation(id, claim),
            Backing::Shared(store) => self.measured("elicitation", store.elicitation(id, claim)).await,
        }
    }

    /// No room for another session.
    pub fn is_full(&self) -> bool {
        match &self.backing {
            Backing::Memory(store) => store.is_full(),
            Backing::Shared(_) => false,
        }
    }

    /// Sessions of this process that have a scope; 0 with a shared store, which nobody counts.
    pub fn scoped(&self) -> usize {
        match &self.backing {
            Backing::Memory(store) => store.scoped(),
            Backing::Shared(_) => 0,
        }
    }

    /// Drops what has expired and returns the backend sessions of this process that end with it.
    pub fn sweep(&self, now: u64) -> Vec<(Uuid, String, BackendSession)> {
        self.alive.sweep(now);
        match &self.backing {
            Backing::Memory(store) => store.sweep(now),
            Backing::Shared(store) => store.sweep(now),
        }
    }

    /// The backend sessions that nobody will know when this process ends.
    pub fn drain(&self) -> Vec<(Uuid, String, BackendSession)> {
        match &self.backing {
            Backing::Memory(store) => store.sweep(u64::MAX),
            Backing::Shared(_) => Vec::new(),
        }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = timeout(DEADLINE, work)
            .await
            .unwrap_or(Err(StoreError::Unavailable));
        self.metrics.store(operation, result.is_ok(), started.elapsed());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s23_the_subscriptions_of_a_session_have_a_bound_in_bytes() {
        let store = SessionStore::memory(MemoryStore::default(), Arc::new(Metrics::default()));
        let jti = Uuid::new_v4();
        let uri = |number: usize| ("a".to_owned(), format!("{number:08192}"));
        let fit = MAX_SUBSCRIBED / 8192;
        for number in 0..fit {
            assert_eq!(store.subscribe(jti, 100, uri(number), true).await, Ok(()));
        }
        assert_eq!(
            store.subscribe(jti, 100, uri(fit), true).await,
            Err(StoreError::Full)
        );
        assert_eq!(store.subscribe(jti, 100, uri(0), true).await, Ok(()), "known");
        assert_eq!(store.subscribe(jti, 100, uri(0), false).await, Ok(()));
        assert_eq!(store.subscribe(jti, 100, uri(fit), true).await, Ok(()));
    }
}
