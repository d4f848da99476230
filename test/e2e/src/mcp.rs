//! A small MCP client over plain HTTP, so that a test sees status, headers and JSON as they are on the wire.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// Tools of the gateway itself, in every list.
const GATEWAYS_OWN: [&str; 2] = ["discover_tools", "select_tools"];

const PROTOCOL_VERSION: &str = "2025-11-25";

/// One session with the gateway.
#[derive(Clone, Debug)]
pub struct McpClient {
    http: reqwest::Client,
    url: String,
    host: String,
    session: Option<String>,
    token: Option<String>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Mcp-Session-Id`, when there is one.
    pub session: Option<String>,
    /// `WWW-Authenticate`, when there is one.
    pub challenge: Option<String>,
    /// The JSON-RPC message; of an SSE stream the last one. `Null` when there is none.
    pub message: Value,
}

impl McpClient {
    /// A client of `url` that asks for `host`, without a session.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(url: &str, host: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self {
            http,
            url: url.to_owned(),
            host: host.to_owned(),
            session: None,
            token: None,
        })
    }

    /// A client that speaks TLS and trusts the authority `ca` (PEM) alone.
    ///
    /// # Errors
    /// When the authority is no certificate, or no HTTP client can be built.
    pub fn with_authority(url: &str, host: &str, ca: &str) -> anyhow::Result<Self> {
        let mut client = Self::new(url, host)?;
        client.http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
            .build()?;
        Ok(client)
    }

    /// The same client with `Authorization: Bearer <token>` on every request.
    #[must_use]
    pub fn with_bearer(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Opens a session: `initialize` and `notifications/initialized`.
    ///
    /// # Errors
    /// When the gateway refuses one of them.
    pub async fn initialize(&mut self) -> anyhow::Result<Value> {
        let params = json!({"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}});
        let answer = self
            .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
            .await?;
        ensure!(answer.status == 200, "initialize: {answer:?}");
        self.session = Some(answer.session.context("initialize gave no session")?);
        let accepted = self
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        ensure!(accepted.status == 202, "notifications/initialized: {accepted:?}");
        Ok(answer.message["result"].clone())
    }

    /// Names of the tools that are listed.
    ///
    /// # Errors
    /// When the list is refused.
    pub async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let result = self.request("tools/list", json!({})).await?;
        let tools = result["tools"].as_array().context("no tools member")?;
        Ok(tools
            .iter()
            .filter_map(|tool| tool["name"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Names of the listed tools that are a server's, without the gateway's own ones.
    ///
    /// # Errors
    /// When the list is refused.
    pub async fn server_tools(&self) -> anyhow::Result<Vec<String>> {
        let mut tools = self.tools().await?;
        tools.retain(|tool| !GATEWAYS_OWN.contains(&tool.as_str()));
        Ok(tools)
    }

    /// Calls a tool and returns its result.
    ///
    /// # Errors
    /// When the answer is a JSON-RPC error, or no answer at all.
    pub async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<Value> {
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await
    }

    /// One request; its result.
    ///
    /// # Errors
    /// When the answer is a JSON-RPC error, or no answer at all.
    pub async fn request(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let answer = self
            .send(&json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}))
            .await?;
        ensure!(
            answer.status == 200 && answer.message.get("result").is_some(),
            "{method}: {answer:?}"
        );
        Ok(answer.message["result"].clone())
    }

    /// Ends the session at the gateway (`DELETE`); this client goes on to name it.
    ///
    /// # Errors
    /// When the gateway refuses that.
    pub async fn end(&self) -> anyhow::Result<()> {
        let response = self.request_to(reqwest::Method::DELETE).send().await?;
        ensure!(response.status().is_success(), "DELETE: {}", response.status());
        Ok(())
    }

    fn request_to(&self, method: reqwest::Method) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(method, &self.url)
            .header("host", format!("{}:{}", self.host, crate::PUBLIC_PORT));
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request
    }

    /// Sends one message as it is.
    ///
    /// # Errors
    /// When no HTTP answer comes.
    pub async fn send(&self, message: &Value) -> anyhow::Result<Answer> {
        let response = self
            .request_to(reqwest::Method::POST)
            .header("accept", "application/json, text/event-stream")
            .json(message)
            .send()
            .await?;
        let status = response.status().as_u16();
        let text = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (session, challenge) = (text("mcp-session-id"), text("www-authenticate"));
        let body = response.text().await?;
        let last = body
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("data:"))
            .unwrap_or(&body);
        Ok(Answer {
            status,
            session,
            challenge,
            message: serde_json::from_str(last).unwrap_or(Value::Null),
        })
    }
}
