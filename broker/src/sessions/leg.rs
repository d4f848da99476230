//! Messages of the gateway on a backend session that is open. Nobody waits for an answer to them.

use super::store::{BackendSession, SessionStore, StoreError};
use super::way::{OwnRequest, Payload, Way};
use crate::auth::hairpin::Purpose;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::protocol::header;
use crate::transport::exchange::ExchangeError;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// One message, and closing one backend session.
const CLOSE: Duration = Duration::from_secs(5);
/// Raw id of the gateway's own requests.
pub(super) const OPEN_ID: &str = "1";

pub(super) const SUBSCRIBE: &str = "resources/subscribe";

/// A backend session that nobody knows yet: it is closed when this goes, however that comes.
pub(super) struct Unkept {
    way: Arc<Way>,
    server: Arc<ServerConfig>,
    backend: Option<BackendSession>,
}

impl Unkept {
    pub(super) fn new(way: &Arc<Way>, server: &Arc<ServerConfig>, backend: &BackendSession) -> Self {
        Self {
            way: Arc::clone(way),
            server: Arc::clone(server),
            backend: Some(backend.clone()),
        }
    }

    /// It is known from now on.
    pub(super) fn keep(mut self) {
        self.backend = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        let (way, server) = (Arc::clone(&self.way), Arc::clone(&self.server));
        if let (Some(backend), Ok(runtime)) = (self.backend.take(), Handle::try_current()) {
            runtime.spawn(async move { close(&way, &server, &backend).await });
        }
    }
}

/// Sends DELETE.
pub(super) async fn close(way: &Way, server: &ServerConfig, backend: &BackendSession) {
    let Some(headers) = session_headers(HeaderMap::new(), backend) else {
        return;
    };
    let request = OwnRequest {
        server,
        purpose: Purpose::BackendClose,
        method: "session/close",
        payload: Payload::End,
        headers,
    };
    let _ = timeout(CLOSE, way.send(&request)).await;
}

/// Sends a message and drops the answer.
pub(super) async fn relay(
    way: &Way,
    (server, backend): (&ServerConfig, &BackendSession),
    headers: HeaderMap,
    (method, body): (&str, String),
) {
    let headers = session_headers(headers.clone(), backend).unwrap_or(headers);
    let request = OwnRequest {
        server,
        purpose: Purpose::BackendCall,
        method,
        payload: Payload::Post(body),
        headers,
    };
    if timeout(CLOSE, way.send(&request)).await.is_err() {
        tracing::debug!(
            component = "broker",
            server = server.name,
            method,
            "Message not delivered"
        );
    }
}

/// Asks for the event stream.
pub(super) async fn listen(
    way: &Way,
    (server, backend): (&ServerConfig, &BackendSession),
    headers: HeaderMap,
    last_event: Option<&str>,
) -> Result<reqwest::Response, ExchangeError> {
    let mut headers = session_headers(headers.clone(), backend).unwrap_or(headers);
    if let Some(Ok(id)) = last_event.map(HeaderValue::from_str) {
        headers.insert("last-event-id", id);
    }
    let request = OwnRequest {
        server,
        purpose: Purpose::BackendCall,
        method: "GET",
        payload: Payload::Stream,
        headers,
    };
    way.send(&request).await
}

/// The headers of a request on a backend session; `None` when the server issued no session id.
pub(super) fn session_headers(mut headers: HeaderMap, backend: &BackendSession) -> Option<HeaderMap> {
    let id = HeaderValue::from_str(backend.id.as_deref()?).ok()?;
    headers.insert(header::SESSION, id);
    if let Ok(version) = HeaderValue::from_str(&backend.version) {
        headers.insert(header::PROTOCOL_VERSION, version);
    }
    Some(headers)
}

/// A backend session that replaces a lost one knows nothing of what the client subscribed to.
pub(super) async fn subscribe_again(
    way: &Way,
    store: &SessionStore,
    (claims, server): (&SessionClaims, &ServerConfig),
    (headers, backend): (HeaderMap, &BackendSession),
) -> Result<(), StoreError> {
    for (name, uri) in store.subscriptions(claims.jti).await? {
        if name == server.name {
            let message = (SUBSCRIBE, subscribe_body(&uri));
            relay(way, (server, backend), headers.clone(), message).await;
        }
    }
    Ok(())
}

/// The request that subscribes to one of the server's own URIs.
pub(super) fn subscribe_body(uri: &str) -> String {
    let uri = crate::protocol::json::quoted(uri);
    format!(r#"{{"jsonrpc":"2.0","id":{OPEN_ID},"method":"{SUBSCRIBE}","params":{{"uri":{uri}}}}}"#)
}

/// The request that tells a server the level of the session.
pub fn set_level_body(level: &str) -> String {
    let level = crate::protocol::json::quoted(level);
    format!(r#"{{"jsonrpc":"2.0","id":{OPEN_ID},"method":"logging/setLevel","params":{{"level":{level}}}}}"#)
}
