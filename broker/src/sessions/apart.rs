//! What a stream of `subscriptions/listen` needs of servers to hear of single resources (data-plane.md 10.5): a backend session
//! that no call uses and no store knows, and its subscriptions; of a server without sessions a stream of the same kind.

use super::leg::{OPEN_ID, SUBSCRIBE, session_headers, subscribe_body};
use super::opener::{OpenError, Opener, initialize, initialized};
use super::store::BackendSession;
use super::way::{OwnRequest, Payload};
use crate::auth::hairpin::Purpose;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::protocol::{header, meta, version};
use crate::transport::exchange::{self, ExchangeError, MAX_SHORT};
use http::{HeaderMap, HeaderValue};
use reqwest::Response;

const LISTEN: &str = "subscriptions/listen";

impl Opener {
    /// Opens a backend session that nobody else finds. Who opened it closes it ([`Opener::close`]).
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_apart(
        &self,
        claims: &SessionClaims,
        server: &ServerConfig,
        headers: HeaderMap,
    ) -> Result<BackendSession, OpenError> {
        let backend = initialize(&self.way, claims, server, headers.clone()).await?;
        if let Err(error) = initialized(&self.way, server, headers, &backend).await {
            self.close(server, &backend).await;
            return Err(error);
        }
        Ok(backend)
    }

    /// Subscribes a backend session to one of the server's own URIs.
    ///
    /// # Errors
    /// [`ExchangeError`]; the server's refusal is one.
    pub async fn subscribe(
        &self,
        (server, backend): (&ServerConfig, &BackendSession),
        headers: HeaderMap,
        uri: &str,
    ) -> Result<(), ExchangeError> {
        let headers = session_headers(headers.clone(), backend).unwrap_or(headers);
        let request = OwnRequest {
            server,
            purpose: Purpose::BackendCall,
            method: SUBSCRIBE,
            payload: Payload::Post(subscribe_body(uri)),
            headers,
        };
        let response = self.way.send(&request).await?;
        if !response.status().is_success() {
            return Err(ExchangeError::Status(response.status().as_u16()));
        }
        exchange::answer(response, (OPEN_ID, MAX_SHORT), None)
            .await
            .map(drop)
    }

    /// Asks a server without sessions for the updates of its own `uris`; the response's headers have come.
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn listen_for(
        &self,
        server: &ServerConfig,
        mut headers: HeaderMap,
        uris: &[&String],
    ) -> Result<Response, ExchangeError> {
        headers.insert(
            header::PROTOCOL_VERSION,
            HeaderValue::from_static(version::MODERN),
        );
        headers.insert(header::MCP_METHOD, HeaderValue::from_static(LISTEN));
        let params = serde_json::json!({"notifications": {"resourceSubscriptions": uris}});
        let request = OwnRequest {
            server,
            purpose: Purpose::BackendCall,
            method: LISTEN,
            payload: Payload::Post(meta::request(
                version::MODERN,
                (OPEN_ID, LISTEN),
                &params.to_string(),
            )),
            headers,
        };
        self.way.send(&request).await
    }
}
