//! A plain MCP client over HTTP that shows everything it gets.

use crate::world::PUBLIC;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    pub session: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    pub host: String,
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text))
    }

    pub fn error(&self) -> (i64, String) {
        let body = self.json();
        (
            body["error"]["code"].as_i64().unwrap_or_default(),
            body["error"]["message"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    pub fn new(base: String) -> Self {
        mcp_gateway_broker::transport::client::install_crypto();
        Self {
            http: reqwest::Client::new(),
            base,
            session: None,
            headers: Vec::new(),
            host: PUBLIC.to_owned(),
        }
    }

    /// A client that speaks TLS to `mcp.test` on this port and trusts one CA.
    pub fn tls(port: u16, ca: &str) -> Self {
        mcp_gateway_broker::transport::client::install_crypto();
        let root = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([root])
            .resolve(PUBLIC, ([127, 0, 0, 1], port).into())
            .build()
            .unwrap();
        Self {
            http,
            base: format!("https://{PUBLIC}:{port}"),
            session: None,
            headers: Vec::new(),
            host: PUBLIC.to_owned(),
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header("host", &self.host);
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply {
            status,
            headers,
            text: response.text().await.unwrap(),
        }
    }

    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Reply {
        let request = self
            .request(reqwest::Method::POST, "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body);
        self.send(request).await
    }

    pub async fn rpc(&self, method: &str, params: Value) -> Reply {
        self.post(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
            .await
    }

    pub async fn call(&self, tool: &str) -> Reply {
        self.rpc("tools/call", json!({"name": tool, "arguments": {}}))
            .await
    }

    /// A call without a session, by a client with these capabilities.
    pub async fn stateless(&self, tool: &str, capabilities: Value) -> Reply {
        self.stateless_at("/mcp", tool, capabilities).await
    }

    pub async fn stateless_at(&self, path: &str, tool: &str, capabilities: Value) -> Reply {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        let params = json!({"name": tool, "arguments": {}, "_meta": meta});
        let request = self
            .request(reqwest::Method::POST, path)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string());
        self.send(request).await
    }

    /// Names of the tools that are listed to a client without a session.
    pub async fn stateless_tools(&self) -> Vec<String> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let body =
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta}}).to_string();
        let request = self
            .request(reqwest::Method::POST, "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/list")
            .body(body);
        let reply = self.send(request).await.json();
        let tools = reply["result"]["tools"].as_array().unwrap();
        let names = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned());
        names.collect()
    }

    pub async fn initialized(self) -> Self {
        self.able(json!({})).await
    }

    /// A session of a client with these capabilities.
    pub async fn able(self, capabilities: Value) -> Self {
        self.opened("2025-11-25", capabilities).await
    }

    /// A session of this version and these capabilities.
    pub async fn opened(mut self, version: &str, capabilities: Value) -> Self {
        let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "test", "version": "1"}});
        let reply = self.rpc("initialize", params).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        self.session = Some(reply.header("mcp-session-id").expect("session id").to_owned());
        let done = self
            .post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
            .await;
        assert_eq!((done.status, done.text.as_str()), (202, ""));
        self
    }

    pub async fn names(&self, method: &str, member: &str, key: &str) -> Vec<String> {
        let reply = self.rpc(method, json!({})).await;
        reply.json()["result"][member]
            .as_array()
            .unwrap_or_else(|| panic!("{}", reply.text))
            .iter()
            .map(|item| item[key].as_str().unwrap().to_owned())
            .collect()
    }

    pub async fn tools(&self) -> Vec<String> {
        self.names("tools/list", "tools", "name").await
    }
}
