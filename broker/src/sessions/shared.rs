//! Sessions in a store that speaks the Redis protocol, shared by all replicas (data-plane.md 12). Writes that must not
//! revive an ended session are scripts, so that no replica sees half of one. A local cache (`recent`) saves the round
//! trip of most calls.

mod wire;

use super::links::MAX_LINKS;
use super::opened::Opened;
use super::recent::Recent;
use super::store::{
    BackendSession, Change, ELICITATION, Ended, LOCK, OpeningLock, Put, Record, SessionEvent, StoreError,
};
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use futures::StreamExt as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands as _, Client, RedisError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use wire::{
    CHANNEL, Scripts, backend_field, elicitation_key, encoded, event_of, forgotten_of, forgotten_text,
    link_order_key, links_key, lock_key, read, revoked_key, session_key, text_of, token_field,
};

const CONNECT: Duration = Duration::from_secs(1);
const FIRST_RECONNECT: Duration = Duration::from_millis(100);
const LONGEST_RECONNECT: Duration = Duration::from_secs(5);
/// Attempts at start, one second apart.
const START_ATTEMPTS: u32 = 3;
/// The store.
pub struct SharedStore {
    client: Client,
    connection: ConnectionManager,
    scripts: Scripts,
    recent: Recent,
    opened: Opened,
}

/// Why a shared store could not be set up. The connection string, which holds a password, is in no message.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string is no address.
    #[error("invalid connection string")]
    Address,
    /// The store does not answer.
    #[error(
        "session store at {address} unavailable: {why}; --cache-connection-string or CACHE_CONNECTION_STRING says where it is"
    )]
    Unavailable {
        /// Host and port.
        address: String,
        /// The kind of the failure.
        why: String,
    },
}

impl SharedStore {
    /// Connects and sends PING, at most three times.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(address: &Secret) -> Result<Self, ConnectError> {
        let client = Client::open(address.expose()).map_err(|_| ConnectError::Address)?;
        let silent = |why| ConnectError::Unavailable {
            address: client.get_connection_info().addr().to_string(),
            why,
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT))
            .set_min_delay(FIRST_RECONNECT)
            .set_max_delay(LONGEST_RECONNECT)
            .set_exponent_base(2.0)
            // One attempt a request: who waits has a deadline below the next attempt anyway.
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(|error| silent(cause(&error)))?;
        let mut attempt = 1;
        loop {
            let ping = async {
                let mut connection = connection.clone();
                connection.ping::<()>().await
            };
            let failed = match timeout(CONNECT * 2, ping).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => cause(&error),
                Err(_) => "timed out".to_owned(),
            };
            if attempt == START_ATTEMPTS {
                return Err(silent(failed));
            }
            attempt += 1;
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Self {
            client,
            connection,
            scripts: Scripts::default(),
            recent: Recent::default(),
            opened: Opened::default(),
        })
    }

    /// The store with the backend sessions that this replica opens counted there.
    pub(super) fn counting(self, metrics: &Metrics) -> Self {
        let opened = Opened::counted(metrics.sessions.backends.clone());
        Self { opened, ..self }
    }

    /// What was loaded within the last 2 s, when it names a backend session with `server`, or no server is asked for.
    pub(super) fn recent(&self, jti: Uuid, server: &str) -> Option<Arc<Record>> {
        let known = self.recent.get(jti)?;
        let enough = !known.revoked && (server.is_empty() || known.backends.contains_key(server));
        enough.then_some(known)
    }

    /// Revocation and everything of the session, in one round trip.
    pub(super) async fn load(&self, jti: Uuid) -> Result<Arc<Record>, StoreError> {
        let ticket = self.recent.ticket();
        let mut connection = self.connection.clone();
        let (revoked, fields): (bool, BTreeMap<String, String>) = redis::pipe()
            .exists(revoked_key(jti))
            .hgetall(session_key(jti))
            .query_async(&mut connection)
            .await
            .map_err(|error| unavailable(&error))?;
        let record = Arc::new(Record {
            revoked,
            ..read(fields)
        });
        self.recent.put(jti, Arc::clone(&record), ticket);
        Ok(record)
    }

    pub(super) async fn lock(&self, jti: Uuid, server: &str) -> Result<Option<OpeningLock>, StoreError> {
        let owner = Uuid::new_v4();
        let mut connection = self.connection.clone();
        let taken: Option<String> = redis::cmd("SET")
            .arg(lock_key(jti, server))
            .arg(owner.to_string())
            .arg("NX")
            .arg("PX")
            .arg(LOCK.as_millis() as u64)
            .query_async(&mut connection)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(taken.map(|_| OpeningLock(owner)))
    }

    pub(super) async fn unlock(&self, jti: Uuid, server: &str, lock: &OpeningLock) -> Result<(), StoreError> {
        let mut call = self.scripts.unlock.prepare_invoke();
        call.key(lock_key(jti, server)).arg(lock.0.to_string());
        self.invoke::<()>(call).await
    }

    pub(super) async fn put(
        &self,
        jti: Uuid,
        expires: u64,
        server: &str,
        backend: &BackendSession,
    ) -> Result<Put, StoreError> {
        let mut call = self.scripts.set_once.prepare_invoke();
        call.key(session_key(jti)).key(revoked_key(jti));
        call.arg(expires).arg(CHANNEL);
        call.arg(text_of(SessionEvent::Changed(jti)));
        call.arg(backend_field(server)).arg(encoded(backend)?);
        let stored: Option<String> = self.invoke(call).await?;
        self.recent.forget(jti);
        let Some(stored) = stored else {
            return Ok(Put::Ended);
        };
        match serde_json::from_str::<BackendSession>(&stored) {
            Ok(stored) if stored == *backend => {
                self.opened.add(jti, expires, (server, backend));
                Ok(Put::Stored)
            }
            Ok(other) => Ok(Put::Taken(other)),
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    pub(super) async fn forget(
        &self,
        jti: Uuid,
        server: &str,
        backend: &BackendSession,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.forget.prepare_invoke();
        call.key(session_key(jti));
        call.arg(CHANNEL).arg(text_of(SessionEvent::Changed(jti)));
        call.arg(backend_field(server)).arg(encoded(backend)?);
        call.arg(forgotten_text(jti, server, backend)?);
        let forgotten = self.invoke::<()>(call).await;
        self.recent.forget(jti);
        self.opened.forget(jti, server, backend);
        forgotten
    }

    pub(super) async fn revoke(&self, jti: Uuid, expires: u64) -> Result<Ended, StoreError> {
        let mut call = self.scripts.revoke.prepare_invoke();
        call.key(session_key(jti)).key(revoked_key(jti));
        call.key(links_key(jti)).key(link_order_key(jti));
        call.arg(expires).arg(CHANNEL);
        call.arg(text_of(SessionEvent::Ended(jti)));
        let fields: Option<BTreeMap<String, String>> = self.invoke(call).await?;
        self.recent.forget(jti);
        self.opened.end(jti);
        Ok(fields.map(|fields| read(fields).backends.into_iter().collect()))
    }

    pub(super) async fn change(
        &self,
        jti: Uuid,
        expires: u64,
        change: Change,
    ) -> Result<Arc<Record>, StoreError> {
        let event = change.event(jti).map(text_of).unwrap_or_default();
        let ticket = self.recent.ticket();
        let (field, value) = match change {
            Change::Level(level) => ("level".to_owned(), Some(level)),
            Change::Token(server, token) => (token_field(&server), token),
            Change::Last(server) => ("last".to_owned(), Some(server)),
            Change::Subscribed(subscription, on) => {
                let subscription =
                    serde_json::to_string(&subscription).map_err(|_| StoreError::Unavailable)?;
                (format!("subs:{subscription}"), on.then(|| "1".to_owned()))
            }
            Change::Scope(scope) => {
                let value = scope.map(|names| serde_json::to_string(&names)).transpose();
                ("scope".to_owned(), value.map_err(|_| StoreError::Unavailable)?)
            }
        };
        let script = match value {
            Some(_) => &self.scripts.set,
            None => &self.scripts.unset,
        };
        let mut call = script.prepare_invoke();
        call.key(session_key(jti)).key(revoked_key(jti));
        call.arg(expires).arg(CHANNEL).arg(event);
        call.arg(field).arg(value.unwrap_or_default());
        let fields: Option<BTreeMap<String, String>> = self.invoke(call).await?;
        let record = Arc::new(match fields {
            Some(fields) => read(fields),
            None => Record {
                revoked: true,
                ..Record::default()
            },
        });
        self.recent.put(jti, Arc::clone(&record), ticket);
        Ok(record)
    }

    pub(super) async fn tell(&self, event: SessionEvent) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let told = connection.publish(CHANNEL, text_of(event)).await;
        told.map_err(|error| unavailable(&error))
    }

    pub(super) async fn add_links(
        &self,
        jti: Uuid,
        expires: u64,
        (server, uris): (&str, &[String]),
    ) -> Result<(), StoreError> {
        let last = uris.len().saturating_sub(MAX_LINKS);
        let mut call = self.scripts.link.prepare_invoke();
        call.key(links_key(jti))
            .key(link_order_key(jti))
            .key(revoked_key(jti));
        call.arg(expires).arg(MAX_LINKS).arg(server);
        for uri in uris.iter().skip(last) {
            call.arg(uri);
        }
        self.invoke::<()>(call).await
    }

    pub(super) async fn link(&self, jti: Uuid, uri: &str) -> Result<Option<String>, StoreError> {
        let mut connection = self.connection.clone();
        let found = connection.hget(links_key(jti), uri).await;
        found.map_err(|error| unavailable(&error))
    }

    pub(super) async fn put_elicitation(&self, id: Uuid, entry: String) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        connection
            .set_ex::<_, _, ()>(elicitation_key(id), entry, ELICITATION.as_secs())
            .await
            .map_err(|error| unavailable(&error))
    }

    pub(super) async fn elicitation(&self, id: Uuid, claim: bool) -> Result<Option<String>, StoreError> {
        let mut connection = self.connection.clone();
        let key = elicitation_key(id);
        let found = if claim {
            connection.get_del(key).await
        } else {
            connection.get(key).await
        };
        found.map_err(|error| unavailable(&error))
    }

    async fn invoke<T: redis::FromRedisValue>(
        &self,
        call: redis::ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        call.invoke_async(&mut connection)
            .await
            .map_err(|error| unavailable(&error))
    }

    /// Backend sessions that this replica opened and whose client session has expired.
    pub(super) fn sweep(&self, now: u64) -> Vec<(Uuid, String, BackendSession)> {
        self.recent.sweep();
        self.opened.sweep(now)
    }

    /// Listens on the channel of all replicas; what was missed while it was lost is made good by an empty cache.
    pub(super) async fn follow_events(&self, events: &broadcast::Sender<SessionEvent>) {
        let mut pause = FIRST_RECONNECT;
        loop {
            let subscribed = async {
                let mut channel = self.client.get_async_pubsub().await?;
                channel.subscribe(CHANNEL).await?;
                Ok::<_, RedisError>(channel.into_on_message())
            };
            if let Ok(Ok(mut messages)) = timeout(CONNECT, subscribed).await {
                pause = FIRST_RECONNECT;
                self.recent.clear();
                while let Some(message) = messages.next().await {
                    let text: String = message.get_payload().unwrap_or_default();
                    self.on_event(&text, events);
                }
                self.recent.clear();
                tracing::warn!(component = "store", "Events of other replicas lost");
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RECONNECT);
        }
    }

    fn on_event(&self, text: &str, events: &broadcast::Sender<SessionEvent>) {
        if let Some((jti, server, backend)) = forgotten_of(text) {
            return self.opened.forget(jti, &server, &backend);
        }
        let Some(event) = event_of(text) else { return };
        if let SessionEvent::Ended(jti) | SessionEvent::Scope(jti) | SessionEvent::Changed(jti) = event {
            self.recent.forget(jti);
        }
        if let SessionEvent::Ended(jti) = event {
            self.opened.end(jti);
        }
        // Nobody listening is fine.
        let _ = events.send(event);
    }
}

/// The kind of a failure, without what the store said: it may repeat what it was sent.
fn cause(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    error.category().to_owned()
}

fn unavailable(error: &RedisError) -> StoreError {
    tracing::debug!(component = "store", error = cause(error), "Store failed");
    StoreError::Unavailable
}
