//! Questions of the gateway to a server on the backend session of one client, by hairpin: the policies on the server's
//! route apply as to the client's own calls.

use super::leg::session_headers;
use super::opener::Opener;
use super::store::BackendSession;
use super::way::{OwnRequest, Payload};
use crate::auth::hairpin::Purpose;
use crate::config::model::ServerConfig;
use crate::protocol::version::{self, Era};
use crate::protocol::{header, meta};
use crate::transport::exchange::{self, Answer, ExchangeError, longest};
use http::{HeaderMap, HeaderValue};

const ID: &str = "1";

impl Opener {
    /// Sends a request with `params` (JSON text) and waits for its answer.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn ask(
        &self,
        (server, backend): (&ServerConfig, &BackendSession),
        headers: &HeaderMap,
        (method, params): (&str, &str),
    ) -> Result<Answer, ExchangeError> {
        let mut headers = session_headers(headers.clone(), backend).unwrap_or_else(|| headers.clone());
        let body = match Era::of(&backend.version) {
            Era::Legacy => format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"{method}","params":{params}}}"#),
            Era::Modern => {
                headers.insert(
                    header::PROTOCOL_VERSION,
                    HeaderValue::from_static(version::MODERN),
                );
                if let Ok(value) = HeaderValue::from_str(method) {
                    headers.insert(header::MCP_METHOD, value);
                }
                meta::request(version::MODERN, (ID, method), params)
            }
        };
        let request = OwnRequest {
            server,
            purpose: Purpose::UserList,
            method,
            payload: Payload::Post(body),
            headers,
        };
        let response = self.way.send(&request).await?;
        if !response.status().is_success() {
            return Err(ExchangeError::Status(response.status().as_u16()));
        }
        exchange::answer(response, (ID, longest(method)), None).await
    }
}
