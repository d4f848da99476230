//! The broker's MCP client: `initialize`, `ping`, lists with all their pages, the notice stream, the end
//! (data-plane.md 6.1–6.3). It offers no client capabilities and answers requests of the server accordingly.

use super::items::ItemKind;
use super::listing::{self, Asker, ListError, Listed};
use crate::config::model::ServerConfig;
use crate::protocol::version::Era;
use crate::protocol::{header, meta, reply, version};
use crate::transport::exchange::{self, Answer, ExchangeError, ReverseRequest, longest};
use crate::transport::notices::Notices;
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

const WHOLE_LIST: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(5);

/// What a server said at `initialize` or `server/discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Negotiated version; a served one or not.
    pub version: String,
    /// Kinds that its capabilities offer.
    pub kinds: Vec<ItemKind>,
    /// The server offers completions.
    pub completions: bool,
    /// `Mcp-Session-Id`.
    pub session: Option<String>,
    /// A server without sessions that serves clients with sessions, too.
    pub sessions: bool,
}

/// A connection to one server.
pub struct Peer {
    client: Client,
    config: Arc<ServerConfig>,
    headers: HeaderMap,
    pub(super) next_id: AtomicU64,
    /// Slots that notices fill.
    pub notices: Arc<Notices>,
}

/// Asks on the shared connection.
struct Connected<'a> {
    peer: &'a Peer,
    hello: &'a Hello,
}

impl Asker for Connected<'_> {
    async fn ask(&self, kind: ItemKind, params: &str) -> Result<Answer, ExchangeError> {
        let method = kind.list_method();
        match self.hello.era() {
            Era::Legacy => self.peer.call(method, params, Some(self.hello)).await,
            Era::Modern => self.peer.ask(method, params).await,
        }
    }
}

/// Capabilities of a server by name.
pub(super) type Capabilities = BTreeMap<String, serde_json::Value>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
    #[serde(default)]
    capabilities: Capabilities,
}

/// `params` of `initialize`.
pub(super) fn introduction() -> String {
    format!(
        r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{}}}"#,
        version::LATEST_LEGACY,
        meta::client_info()
    )
}

impl Hello {
    /// How the server speaks.
    pub fn era(&self) -> Era {
        Era::of(&self.version)
    }

    /// What `capabilities` offer.
    pub(super) fn of(version: String, capabilities: &Capabilities, session: Option<String>) -> Self {
        let offers = |name: &str| capabilities.get(name).is_some_and(|value| !value.is_null());
        let kinds = ItemKind::ALL.into_iter().filter(|kind| match kind {
            ItemKind::Tool => offers("tools"),
            ItemKind::Prompt => offers("prompts"),
            ItemKind::Resource | ItemKind::Template => offers("resources"),
        });
        Self {
            version,
            kinds: kinds.collect(),
            completions: offers("completions"),
            session,
            sessions: false,
        }
    }
}

impl Peer {
    /// A peer; nothing is sent yet.
    pub fn new(client: Client, config: Arc<ServerConfig>, notices: Notices) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("mcp-broker"));
        headers.insert(
            "accept",
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if let Ok(id) = HeaderValue::from_str(&header::encode(&config.id)) {
            headers.insert("gateway-server-id", id);
        }
        if !config.credential.is_empty()
            && let Ok(mut value) = HeaderValue::from_str(config.credential.expose())
        {
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        headers.extend(config.headers.clone());
        Self {
            client,
            config,
            headers,
            next_id: AtomicU64::new(1),
            notices: Arc::new(notices),
        }
    }

    pub(super) fn request(&self, method: Method, hello: Option<&Hello>) -> RequestBuilder {
        let mut headers = self.headers.clone();
        if let Some(hello) = hello {
            if let Some(Ok(session)) = hello.session.as_deref().map(HeaderValue::from_str) {
                headers.insert(header::SESSION, session);
            }
            if let Ok(version) = HeaderValue::from_str(&hello.version) {
                headers.insert(header::PROTOCOL_VERSION, version);
            }
        }
        self.client
            .request(method, self.config.url.clone())
            .headers(headers)
    }

    fn post(&self, body: String, hello: Option<&Hello>) -> RequestBuilder {
        self.request(Method::POST, hello)
            .header("content-type", "application/json")
            .body(body)
    }

    async fn call(&self, method: &str, params: &str, hello: Option<&Hello>) -> Result<Answer, ExchangeError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let response = exchange::send(self.post(body, hello)).await?;
        let answer = exchange::answer(response, (&id, longest(method)), Some(&self.notices)).await?;
        self.refuse_all(&answer.reverse, hello).await;
        Ok(answer)
    }

    /// Answers requests that the server made: nobody can answer them on a shared connection.
    async fn refuse_all(&self, requests: &[ReverseRequest], hello: Option<&Hello>) {
        for request in requests {
            let _ = exchange::send(self.post(exchange::reverse_answer(request), hello)).await;
        }
    }

    /// `initialize` and `notifications/initialized`.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn initialize(&self) -> Result<Hello, ExchangeError> {
        let answer = self.call("initialize", &introduction(), None).await?;
        self.initialized(answer).await
    }

    /// What an answer to `initialize` says, and `notifications/initialized`; a session that the server then refuses is closed.
    pub(super) async fn initialized(&self, answer: Answer) -> Result<Hello, ExchangeError> {
        let result: InitializeResult =
            serde_json::from_str(answer.result.get()).map_err(|_| ExchangeError::Malformed)?;
        let hello = Hello::of(result.protocol_version, &result.capabilities, answer.session);
        if version::served(&hello.version).is_some() {
            let notice = self.post(reply::notification("notifications/initialized"), Some(&hello));
            let refused = match exchange::send(notice).await {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(ExchangeError::Status(response.status().as_u16())),
                Err(error) => Some(error),
            };
            if let Some(refused) = refused {
                self.close(&hello).await;
                return Err(refused);
            }
        }
        Ok(hello)
    }

    /// `ping`, or `server/discover` where there is no `ping`.
    ///
    /// # Errors
    /// [`ExchangeError`]; a JSON-RPC error proves the server alive and is none.
    pub async fn ping(&self, hello: &Hello) -> Result<(), ExchangeError> {
        if hello.era() == Era::Modern {
            return self.still_stateless().await;
        }
        match self.call("ping", "{}", Some(hello)).await {
            Ok(_) | Err(ExchangeError::Rpc(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All pages of one kind.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list(&self, kind: ItemKind, hello: &Hello) -> Listed {
        timeout(WHOLE_LIST, listing::pages(kind, &Connected { peer: self, hello }))
            .await
            .unwrap_or(Err(ListError::Timeout))
    }

    /// Opens the notice stream; the answer decides whether there is one.
    ///
    /// # Errors
    /// [`ExchangeError`] when no response came.
    pub async fn open_notices(
        &self,
        hello: &Hello,
        last_event: Option<&str>,
    ) -> Result<Response, ExchangeError> {
        if hello.era() == Era::Modern {
            return self.listen(&hello.kinds).await;
        }
        let request = self
            .request(Method::GET, Some(hello))
            .header("accept", "text/event-stream");
        let request = match last_event {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        exchange::send(request).await
    }

    /// Answers requests that came by the notice stream.
    pub async fn refuse(&self, requests: &[ReverseRequest], hello: &Hello) {
        if hello.era() == Era::Modern {
            return;
        }
        self.refuse_all(requests, Some(hello)).await;
    }

    /// Ends the session at the server, if there is one.
    pub async fn close(&self, hello: &Hello) {
        if hello.session.is_some() {
            let _ = timeout(STOP, exchange::send(self.request(Method::DELETE, Some(hello)))).await;
        }
    }
}
