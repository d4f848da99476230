//! A client without an SDK, of any revision: what it sends and sees is exactly what the test says.

use super::seat::{DEADLINE, STATELESS};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A client at one endpoint.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    revision: &'static str,
    session: Option<String>,
}

/// The messages of a reply, in their order; the answer is the last one.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) messages: Vec<Value>,
}

impl Reply {
    pub(crate) fn answer(&self) -> &Value {
        self.messages.last().unwrap_or(&Value::Null)
    }

    pub(crate) fn result(&self) -> &Value {
        &self.answer()["result"]
    }

    /// Text of the first content of a tool's result.
    pub(crate) fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_default()
    }
}

impl Client {
    /// A client that can be asked everything, with its session open when the revision has sessions.
    pub(crate) async fn connect(url: &str, revision: &'static str) -> Self {
        let mut client = Self {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            revision,
            session: None,
        };
        if !client.is_stateless() {
            let params = json!({"protocolVersion": revision, "capabilities": capabilities(), "clientInfo": {"name": "raw", "version": "1"}});
            let response = client.send("initialize", params, &json!(0)).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let id = response.headers().get("mcp-session-id").unwrap();
            client.session = Some(id.to_str().unwrap().to_owned());
            client.notify("notifications/initialized", json!({})).await;
        }
        client
    }

    pub(crate) fn is_stateless(&self) -> bool {
        self.revision == STATELESS
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        let request = self
            .http
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string());
        let request = match &self.session {
            Some(id) => request.header("mcp-session-id", id),
            None => request,
        };
        if self.session.is_some() || self.is_stateless() {
            request.header("mcp-protocol-version", self.revision)
        } else {
            request
        }
    }

    /// A request that is yet to be sent.
    pub(crate) fn send(&self, method: &str, params: Value, id: &Value) -> RequestBuilder {
        let mut params = params;
        let stateless = self.is_stateless();
        if stateless {
            let meta = json!({"io.modelcontextprotocol/protocolVersion": self.revision, "io.modelcontextprotocol/clientCapabilities": capabilities()});
            let members = params["_meta"].as_object().cloned().unwrap_or_default();
            params["_meta"] = meta;
            params["_meta"].as_object_mut().unwrap().extend(members);
        }
        let request = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let name = params.get("name").or(params.get("uri")).and_then(Value::as_str);
        match name.filter(|_| stateless) {
            Some(name) => request.header("mcp-method", method).header("mcp-name", name),
            None if stateless => request.header("mcp-method", method),
            None => request,
        }
    }

    pub(crate) async fn notify(&self, method: &str, params: Value) {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let response = self.post(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{method}: {}", response.status());
    }

    pub(crate) async fn request(&self, method: &str, params: Value) -> Reply {
        let response = timeout(DEADLINE, self.send(method, params, &json!(7)).send()).await;
        self.read(response.expect("no reply").unwrap()).await
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Reply {
        self.request("tools/call", json!({"name": name, "arguments": arguments}))
            .await
    }

    /// Reads a reply to its end, and answers what it is asked on the way.
    async fn read(&self, response: Response) -> Reply {
        let status = response.status().as_u16();
        let kind = response
            .headers()
            .get("content-type")
            .map(|kind| kind.to_str().unwrap().to_owned());
        if !kind.unwrap_or_default().starts_with("text/event-stream") {
            let text = timeout(DEADLINE, response.text()).await.unwrap().unwrap();
            let messages = serde_json::from_str(&text).into_iter().collect();
            return Reply { status, messages };
        }
        let mut events = Events::of(response);
        let mut messages = Vec::new();
        while let Some(message) = events.next().await {
            if message["method"] == "elicitation/create" {
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": accepted()});
                let taken = self.post(&answer).send().await.unwrap();
                assert_eq!(taken.status(), 202);
            }
            messages.push(message);
        }
        Reply { status, messages }
    }

    /// The stream of change notices, open.
    pub(crate) async fn notices(&self) -> Events {
        if self.is_stateless() {
            return self.listen(json!({"toolsListChanged": true})).await.1;
        }
        let request = self
            .http
            .get(&self.url)
            .header("accept", "text/event-stream")
            .header("mcp-session-id", self.session.as_deref().unwrap());
        Self::events(request).await
    }

    async fn events(request: RequestBuilder) -> Events {
        let response = timeout(DEADLINE, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        Events::of(response)
    }

    /// Listens without a session: what of `notifications` is honoured, and the stream after that.
    pub(crate) async fn listen(&self, notifications: Value) -> (Value, Events) {
        let params = json!({"notifications": notifications});
        let mut events = Self::events(self.send("subscriptions/listen", params, &json!("l"))).await;
        let first = events.next().await.unwrap();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        (first["params"]["notifications"].clone(), events)
    }
}

fn capabilities() -> Value {
    json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}})
}

/// What the person answers.
pub(crate) fn accepted() -> Value {
    json!({"action": "accept", "content": {"username": "ann", "email": "ann@example.com", "name": "ann"}})
}

/// An event stream.
pub(crate) struct Events {
    stream: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    text: String,
}

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        Self {
            stream: Box::pin(response.bytes_stream()),
            text: String::new(),
        }
    }

    /// The next message; nothing at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data: String = event
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .collect();
                let message = serde_json::from_str(data.trim()).ok();
                self.text = rest.to_owned();
                if message.is_some() {
                    return message;
                }
                continue;
            }
            let piece = timeout(DEADLINE, self.stream.next())
                .await
                .expect("the stream is silent")?;
            self.text.push_str(std::str::from_utf8(&piece.ok()?).unwrap());
        }
    }
}
