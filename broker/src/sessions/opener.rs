//! Opens backend sessions: one flight per (client session, server), detached from the request that asked first, so that
//! a slow server's session is ready for the next call (data-plane.md 8.9, 9; D19, D20, D24).

use super::leg::{self, OPEN_ID, Unkept, close, relay, session_headers, set_level_body, subscribe_again};
use super::store::{BackendSession, Put, SessionStore, StoreError};
use super::watchers::Watchers;
use super::way::{OwnRequest, Payload, Way};
use crate::auth::hairpin::Purpose;
use crate::auth::session::{SessionClaims, capabilities};
use crate::config::model::ServerConfig;
use crate::protocol::{header, reply, version};
use crate::transport::exchange::{self, ExchangeError, Failure, MAX_SHORT};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// An opening ends after this time, whoever waits.
const BACKGROUND: Duration = Duration::from_secs(30);
/// Openings under way at once in this process.
const MAX_OPENINGS: usize = 8192;
/// Openings at one server, so that one that hangs leaves room for the others.
const OPENINGS_OF_SERVER: usize = 1024;
/// How often a replica looks whether another one has opened.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Why there is no backend session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A policy in front of the server refused: its answer passes as it is.
    #[error("refused by a policy with status {}", .0.status)]
    Policy(Failure),
    /// The server refused.
    #[error("server refused the session: {0}")]
    Refused(ExchangeError),
    /// The server, or the way to it, is down.
    #[error("server unavailable: {0}")]
    Unavailable(ExchangeError),
    /// The gateway itself has no route there.
    #[error("no route at the gateway")]
    NoRoute,
    /// Not ready within the deadline of the request; it goes on.
    #[error("still opening")]
    Late,
    /// The client session ended meanwhile.
    #[error("client session ended")]
    Ended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many openings at once.
    #[error("too many openings")]
    Busy,
}

type Outcome = Result<BackendSession, OpenError>;
/// By server and client session.
type Flights = Mutex<HashMap<String, HashMap<Uuid, watch::Receiver<Option<Outcome>>>>>;

/// Opens and closes backend sessions.
pub struct Opener {
    pub(super) way: Arc<Way>,
    store: Arc<SessionStore>,
    flights: Arc<Flights>,
    missing_routes: Arc<Mutex<BTreeSet<String>>>,
    /// Told of every backend session that is opened.
    pub watchers: Arc<Watchers>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Deserialize, Default)]
struct Capabilities {
    logging: Option<serde_json::Value>,
}

/// Takes the flight out of the map however its task ends.
struct Landing {
    flights: Arc<Flights>,
    server: String,
    jti: Uuid,
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Ok(mut flights) = self.flights.lock() {
            let Some(of_server) = flights.get_mut(&self.server) else {
                return;
            };
            of_server.remove(&self.jti);
            if of_server.is_empty() {
                flights.remove(&self.server);
            }
        }
    }
}

impl Opener {
    /// An opener over a way and a store.
    pub fn new(way: Arc<Way>, store: Arc<SessionStore>) -> Self {
        Self {
            way,
            store,
            flights: Arc::default(),
            missing_routes: Arc::default(),
            watchers: Arc::default(),
        }
    }

    /// The backend session of this client session with `server`, opened when there is none. `headers` are those of the
    /// client that a hairpin carries.
    ///
    /// # Errors
    /// [`OpenError`]; after [`OpenError::Late`] the opening goes on and the next call finds its result.
    pub async fn open(
        &self,
        claims: &SessionClaims,
        server: &Arc<ServerConfig>,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Outcome {
        let mut flight = self.flight(claims, server, headers)?;
        match timeout(deadline, flight.wait_for(Option::is_some)).await {
            Err(_) => Err(OpenError::Late),
            Ok(Err(_)) => Err(OpenError::Unavailable(ExchangeError::Broken)),
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(OpenError::Late)),
        }
    }

    fn flight(
        &self,
        claims: &SessionClaims,
        server: &Arc<ServerConfig>,
        headers: HeaderMap,
    ) -> Result<watch::Receiver<Option<Outcome>>, OpenError> {
        let (jti, name) = (claims.jti, server.name.clone());
        let mut flights = self.flights.lock().map_err(|_| OpenError::Busy)?;
        let all: usize = flights.values().map(HashMap::len).sum();
        let of_server = flights.get(&name);
        if let Some(flight) = of_server.and_then(|of_server| of_server.get(&jti)) {
            return Ok(flight.clone());
        }
        if all >= MAX_OPENINGS || of_server.is_some_and(|of_server| of_server.len() >= OPENINGS_OF_SERVER) {
            return Err(OpenError::Busy);
        }
        let (done, flight) = watch::channel(None);
        flights
            .entry(name.clone())
            .or_default()
            .insert(jti, flight.clone());
        drop(flights);
        let landing = Landing {
            flights: Arc::clone(&self.flights),
            server: name,
            jti,
        };
        let (way, store) = (Arc::clone(&self.way), Arc::clone(&self.store));
        let (claims, server) = (claims.clone(), Arc::clone(server));
        let missing_routes = Arc::clone(&self.missing_routes);
        let watchers = Arc::clone(&self.watchers);
        tokio::spawn(async move {
            let outcome = timeout(BACKGROUND, locked(&way, &store, &claims, &server, headers)).await;
            let outcome = outcome.unwrap_or(Err(OpenError::Unavailable(ExchangeError::Timeout("session"))));
            if let Err(error) = &outcome {
                tracing::info!(component = "router", server = server.name, session = %claims.jti, %error, "Backend session not opened");
            }
            if let Ok(mut missing) = missing_routes.lock() {
                match &outcome {
                    Err(OpenError::NoRoute) => {
                        missing.insert(server.name.clone());
                    }
                    Ok(_) => {
                        missing.remove(&server.name);
                    }
                    Err(_) => {}
                }
            }
            // The result is in the store before the flight is gone, so nobody starts a second one in between.
            done.send_replace(Some(outcome));
            drop(landing);
            watchers.touch(claims.jti);
        });
        Ok(flight)
    }

    /// Whether the gateway had no route to this server when a backend session was last opened (D70).
    pub fn lacks_route(&self, server: &str) -> bool {
        self.missing_routes
            .lock()
            .is_ok_and(|missing| missing.contains(server))
    }

    /// Sends a message of the client on a backend session and drops the answer.
    pub async fn relay(
        &self,
        (server, backend): (&ServerConfig, &BackendSession),
        headers: HeaderMap,
        (method, body): (&str, String),
    ) {
        relay(&self.way, (server, backend), headers, (method, body)).await;
    }

    /// Sends a client's message through the gateway once more, as [`Hairpin::again`](super::hairpin::Hairpin::again).
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn again(
        &self,
        headers: HeaderMap,
        host: &str,
        body: String,
    ) -> Result<reqwest::Response, ExchangeError> {
        self.way.again(headers, host, body).await
    }

    /// Asks for the event stream of a backend session; the response's headers have come.
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn listen(
        &self,
        (server, backend): (&ServerConfig, &BackendSession),
        headers: HeaderMap,
        last_event: Option<&str>,
    ) -> Result<reqwest::Response, ExchangeError> {
        leg::listen(&self.way, (server, backend), headers, last_event).await
    }

    /// Closes a backend session and forgets it.
    pub async fn end(&self, jti: Uuid, server: &ServerConfig, backend: &BackendSession) {
        let _ = self.store.forget(jti, &server.name, backend).await;
        close(&self.way, server, backend).await;
    }

    /// Sends DELETE for a backend session; a server that refuses (405) keeps it, which is its right.
    pub async fn close(&self, server: &ServerConfig, backend: &BackendSession) {
        close(&self.way, server, backend).await;
    }
}

/// Opens when no other replica does; otherwise waits for what that one finds.
async fn locked(
    way: &Arc<Way>,
    store: &SessionStore,
    claims: &SessionClaims,
    server: &Arc<ServerConfig>,
    headers: HeaderMap,
) -> Outcome {
    loop {
        if let Some(lock) = store.lock(claims.jti, &server.name).await? {
            let outcome = opened(way, store, claims, server, headers).await;
            store.unlock(claims.jti, &server.name, lock).await;
            return outcome;
        }
        let facts = store.facts(claims.jti, &server.name).await?;
        match facts.backend {
            _ if facts.revoked => return Err(OpenError::Ended),
            Some(backend) => return Ok(backend),
            None => sleep(LOCK_POLL).await,
        }
    }
}

async fn opened(
    way: &Arc<Way>,
    store: &SessionStore,
    claims: &SessionClaims,
    server: &Arc<ServerConfig>,
    headers: HeaderMap,
) -> Outcome {
    // A flight that landed between the caller's lookup and now has left its result here.
    let facts = store.facts(claims.jti, &server.name).await?;
    if facts.revoked {
        return Err(OpenError::Ended);
    }
    if let Some(backend) = facts.backend {
        return Ok(backend);
    }
    let backend = initialize(way, claims, server, headers.clone()).await?;
    let unkept = Unkept::new(way, server, &backend);
    initialized(way, server, headers.clone(), &backend).await?;
    if let Some(level) = facts.level.filter(|_| backend.logging) {
        let message = ("logging/setLevel", set_level_body(&level));
        relay(way, (server, &backend), headers.clone(), message).await;
    }
    subscribe_again(way, store, (claims, server), (headers, &backend)).await?;
    let put = store.put(claims.jti, claims.exp, &server.name, &backend).await;
    match put? {
        Put::Stored => {
            unkept.keep();
            Ok(backend)
        }
        Put::Taken(earlier) => Ok(earlier),
        Put::Ended => Err(OpenError::Ended),
    }
}

/// The backend session offers what the client declared and the gateway relays.
fn initialize_body(protocol_version: &str, letters: &str) -> String {
    let capabilities = capabilities(letters, protocol_version);
    format!(
        r#"{{"jsonrpc":"2.0","id":{OPEN_ID},"method":"initialize","params":{{"protocolVersion":"{protocol_version}","capabilities":{capabilities},"clientInfo":{{"name":"mcp-gateway","version":"{}"}}}}}}"#,
        crate::VERSION
    )
}

pub(super) async fn initialize(
    way: &Way,
    claims: &SessionClaims,
    server: &ServerConfig,
    headers: HeaderMap,
) -> Outcome {
    let version = version::served(&claims.ver).unwrap_or(version::LATEST_LEGACY);
    let payload = Payload::Post(initialize_body(version, &claims.cap));
    let request = OwnRequest {
        server,
        purpose: Purpose::BackendInit,
        method: "initialize",
        payload,
        headers,
    };
    let response = way.send(&request).await.map_err(OpenError::Unavailable)?;
    if !response.status().is_success() {
        return Err(refusal(way.failure(response).await));
    }
    let answer = exchange::answer(response, (OPEN_ID, MAX_SHORT), None)
        .await
        .map_err(OpenError::Refused)?;
    let result: Initialized = serde_json::from_str(answer.result.get())
        .map_err(|_| OpenError::Refused(ExchangeError::Malformed))?;
    let version =
        version::served(&result.protocol_version).ok_or(OpenError::Refused(ExchangeError::Malformed))?;
    Ok(BackendSession {
        id: answer.session,
        version: version.to_owned(),
        logging: result.capabilities.logging.is_some(),
    })
}

pub(super) async fn initialized(
    way: &Way,
    server: &ServerConfig,
    headers: HeaderMap,
    backend: &BackendSession,
) -> Result<(), OpenError> {
    let mut headers = headers;
    if let Some(with_session) = session_headers(headers.clone(), backend) {
        headers = with_session;
    } else if let Ok(version) = HeaderValue::from_str(&backend.version) {
        headers.insert(header::PROTOCOL_VERSION, version);
    }
    let method = "notifications/initialized";
    let request = OwnRequest {
        server,
        purpose: Purpose::BackendInit,
        method,
        payload: Payload::Post(reply::notification(method)),
        headers,
    };
    let response = way.send(&request).await.map_err(OpenError::Unavailable)?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(refusal(way.failure(response).await))
}

/// Who refused: a policy before the guard (no details), the server, or Envoy's own router.
fn refusal(failure: Failure) -> OpenError {
    match failure.details.as_deref() {
        Some("via_upstream") if failure.status >= 500 => {
            OpenError::Unavailable(ExchangeError::Status(failure.status))
        }
        Some("via_upstream") => OpenError::Refused(ExchangeError::Status(failure.status)),
        Some(_) if failure.status == 404 => OpenError::NoRoute,
        Some(_) => OpenError::Unavailable(ExchangeError::Status(failure.status)),
        None if matches!(failure.status, 401 | 403 | 429) => OpenError::Policy(failure),
        None => OpenError::Unavailable(ExchangeError::Status(failure.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session::internal;
    use crate::config::document::{Dialect, read_as};
    use crate::sessions::memory::MemoryStore;
    use crate::sessions::way::Direct;
    use crate::telemetry::metrics::Metrics;
    use crate::transport::address::AddressPolicy;

    #[tokio::test]
    async fn s23_a_server_that_hangs_takes_no_opening_from_the_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let text = format!(
            "servers:\n- {{name: ns/a, url: 'http://{at}/mcp'}}\n- {{name: ns/b, url: 'http://{at}/mcp'}}\n"
        );
        let dialect = Dialect {
            forwards: true,
            local: None,
        };
        let snapshot = read_as(text.as_bytes(), dialect).unwrap();
        let [hung, other] = snapshot.servers.as_slice() else {
            panic!("{:?}", snapshot.errors)
        };
        let way = Arc::new(Way::Direct(Arc::new(Direct::new(AddressPolicy::Unchecked))));
        let store = SessionStore::memory(MemoryStore::default(), Arc::new(Metrics::default()));
        let opener = Opener::new(way, Arc::new(store));
        let open = |server| {
            let claims = internal(Uuid::new_v4(), u64::MAX, None);
            opener.flight(&claims, server, HeaderMap::new())
        };
        // No opening lands before they all have begun: nothing is awaited here.
        let flights: Vec<_> = (0..OPENINGS_OF_SERVER).map(|_| open(hung).unwrap()).collect();
        assert_eq!(open(hung).map(drop), Err(OpenError::Busy));
        assert!(open(other).is_ok());
        drop(flights);
    }
}
