//! The broker's MCP client towards servers without sessions (data-plane.md 6.1): finding out that a server is one, its
//! lists, its health and its notices. Every request says in its headers what it is.

use super::items::ItemKind;
use super::peer::{Capabilities, Hello, Peer, introduction};
use crate::protocol::reply::{HEADER_MISMATCH, METHOD_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use crate::protocol::{header, meta, version};
use crate::transport::exchange::{self, Answer, ExchangeError, Failure, longest};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// A server that does not answer by then is asked as one with sessions.
const PROBE: Duration = Duration::from_secs(5);
const DISCOVER: &str = "server/discover";

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It has no sessions.
    Stateless(Hello),
    /// Anything else: it is to be asked by `initialize`.
    Sessions,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Option<Vec<String>>,
    result_type: Option<String>,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
struct Refused {
    error: RpcError,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    data: serde_json::Value,
}

/// The JSON-RPC error of a response that is no success.
fn rpc_error(failure: &Failure) -> Option<RpcError> {
    serde_json::from_slice::<Refused>(&failure.body)
        .ok()
        .map(|refused| refused.error)
}

/// What can be said of a server that does not tell: it may have tools.
fn silent() -> Hello {
    let tools = [("tools".to_owned(), serde_json::json!({}))];
    Hello::of(version::MODERN.to_owned(), &tools.into(), None)
}

impl Peer {
    fn stateless(&self, method: &str, params: &str) -> (RequestBuilder, String) {
        self.dressed(version::MODERN, method, params)
    }

    /// A request that says what it is in its headers and `_meta`, and its id.
    fn dressed(&self, version: &str, method: &str, params: &str) -> (RequestBuilder, String) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let request = self
            .request(Method::POST, None)
            .header("content-type", "application/json")
            .header(header::PROTOCOL_VERSION, version)
            .header(header::MCP_METHOD, method)
            .body(meta::request(version, (&id, method), params));
        (request, id)
    }

    /// Sends a request without a session; `params` is JSON text.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn ask(&self, method: &str, params: &str) -> Result<Answer, ExchangeError> {
        let (request, id) = self.stateless(method, params);
        let response = exchange::send(request).await?;
        if response.status().is_success() {
            let limit = longest(method);
            return exchange::answer(response, (&id, limit), Some(&self.notices)).await;
        }
        let failure = exchange::failure(response, "").await;
        let status = ExchangeError::Status(failure.status);
        Err(rpc_error(&failure).map_or(status, |error| ExchangeError::Rpc(error.code)))
    }

    /// Whether a server that answers without sessions has them, too. Not every server that has names their revisions in
    /// `server/discover`: the SDK for Python lists only what it serves without them. So it is tried.
    pub(super) async fn has_sessions(&self, named: bool) -> bool {
        if named {
            return true;
        }
        let Ok(Ok(answer)) = timeout(PROBE, self.tried()).await else {
            return false;
        };
        let Ok(hello) = self.initialized(answer).await else {
            return false;
        };
        self.close(&hello).await;
        version::served(&hello.version).is_some()
    }

    /// `initialize` with everything that a server without sessions wants of a request, so that it can read and refuse it.
    async fn tried(&self) -> Result<Answer, ExchangeError> {
        let method = "initialize";
        let (request, id) = self.dressed(version::LATEST_LEGACY, method, &introduction());
        let response = exchange::send(request).await?;
        exchange::answer(response, (&id, longest(method)), Some(&self.notices)).await
    }

    /// Finds out whether the server is one without sessions. A server that names this revision among others is asked once
    /// more: it did not like something else.
    ///
    /// # Errors
    /// [`ExchangeError::Connect`]: nothing was found out.
    pub(super) async fn probe(&self) -> Result<Found, ExchangeError> {
        for _ in 0..2 {
            match timeout(PROBE, self.probed()).await {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => {}
                Ok(Err(ExchangeError::Connect(what))) => return Err(ExchangeError::Connect(what)),
                Ok(Err(_)) | Err(_) => return Ok(Found::Sessions),
            }
        }
        Ok(Found::Sessions)
    }

    /// One attempt; `None` asks for another.
    async fn probed(&self) -> Result<Option<Found>, ExchangeError> {
        let (request, id) = self.stateless(DISCOVER, "{}");
        let response = exchange::send(request).await?;
        if response.status().is_success() {
            let limit = longest(DISCOVER);
            let answer = exchange::answer(response, (&id, limit), Some(&self.notices)).await?;
            return Ok(Some(found(answer.result.get())));
        }
        let failure = exchange::failure(response, "").await;
        let Some(error) = rpc_error(&failure) else {
            return Ok(Some(Found::Sessions));
        };
        let is = |code: i32| error.code == i64::from(code);
        if is(UNSUPPORTED_VERSION) {
            let supported = error.data.get("supported").and_then(serde_json::Value::as_array);
            let again = supported.is_some_and(|list| list.iter().any(|version| version == version::MODERN));
            return Ok((!again).then_some(Found::Sessions));
        }
        let stateless =
            is(HEADER_MISMATCH) || is(MISSING_CAPABILITY) || (failure.status == 404 && is(METHOD_NOT_FOUND));
        Ok(Some(if stateless {
            Found::Stateless(silent())
        } else {
            Found::Sessions
        }))
    }

    /// Asks again what the server is; an error when it answers no longer as one without sessions.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(super) async fn still_stateless(&self) -> Result<(), ExchangeError> {
        match self.ask(DISCOVER, "{}").await {
            Ok(_) => Ok(()),
            Err(ExchangeError::Rpc(code)) if code == i64::from(METHOD_NOT_FOUND) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for the notices of the lists that the server has.
    ///
    /// # Errors
    /// [`ExchangeError`] when no response came.
    pub(super) async fn listen(&self, kinds: &[ItemKind]) -> Result<Response, ExchangeError> {
        let wanted = [
            (ItemKind::Tool, "toolsListChanged"),
            (ItemKind::Prompt, "promptsListChanged"),
            (ItemKind::Resource, "resourcesListChanged"),
        ];
        let wanted = wanted.into_iter().filter(|(kind, _)| kinds.contains(kind));
        let members: Vec<String> = wanted.map(|(_, name)| format!(r#""{name}":true"#)).collect();
        let params = format!(r#"{{"notifications":{{{}}}}}"#, members.join(","));
        exchange::send(self.stateless("subscriptions/listen", &params).0).await
    }
}

/// What a result of `server/discover` says.
fn found(result: &str) -> Found {
    let Ok(discovered) = serde_json::from_str::<Discovered>(result) else {
        return Found::Sessions;
    };
    let named = discovered.supported_versions.as_ref();
    let sessions = named.is_some_and(|versions| versions.iter().any(|v| version::served(v).is_some()));
    let named = named.map(|versions| versions.iter().any(|version| version == version::MODERN));
    match (named, discovered.result_type, discovered.capabilities) {
        (Some(true), _, Some(capabilities)) => Found::Stateless(Hello {
            sessions,
            ..Hello::of(version::MODERN.to_owned(), &capabilities, None)
        }),
        (Some(true), ..) | (None, Some(_), _) => Found::Stateless(silent()),
        _ => Found::Sessions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_stateless_when_it_names_the_revision() {
        let hello = |text| match found(text) {
            Found::Stateless(hello) => Some((hello.kinds.len(), hello.completions)),
            Found::Sessions => None,
        };
        assert_eq!(
            hello(
                r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{},"completions":{}}}"#
            ),
            Some((3, true))
        );
        assert_eq!(hello(r#"{"resultType":"complete"}"#), Some((1, false)));
        assert_eq!(
            hello(r#"{"supportedVersions":["2025-11-25"],"capabilities":{}}"#),
            None
        );
        assert_eq!(hello("{}"), None);
        assert_eq!(hello("7"), None);
    }

    /// A server that answers `initialize` with a version, or does not know it.
    async fn initializing(version: Option<&'static str>) -> Peer {
        let answer = move |body: axum::Json<serde_json::Value>| async move {
            let id = &body["id"];
            let answer = match version {
                Some(version) => serde_json::json!({"jsonrpc": "2.0", "id": id, "result": {
                    "protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}}),
                None => serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {
                    "code": METHOD_NOT_FOUND, "message": "Method not found"}}),
            };
            axum::Json(answer)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let text = format!("servers: [{{name: one, url: 'http://{address}/mcp'}}]");
        let config = crate::config::document::read(text.as_bytes()).unwrap();
        let server = std::sync::Arc::clone(&config.servers[0]);
        let notices = crate::transport::notices::Notices::default();
        Peer::new(reqwest::Client::new(), server, notices)
    }

    #[tokio::test]
    async fn sessions_that_a_server_does_not_name_are_tried() {
        crate::transport::client::install_crypto();
        assert!(initializing(Some("2025-11-25")).await.has_sessions(false).await);
        assert!(!initializing(Some("1999-01-01")).await.has_sessions(false).await);
        let never = initializing(None).await;
        assert!(!never.has_sessions(false).await && never.has_sessions(true).await);
    }
}
