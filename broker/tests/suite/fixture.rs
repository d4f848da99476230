//! An MCP server on loopback whose behaviour a test sets, and which remembers what it saw.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};

/// One request that the server saw.
#[derive(Clone)]
pub struct Seen {
    pub verb: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn mcp_method(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|body| body["method"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub name: &'static str,
    pub tools: Mutex<Vec<Value>>,
    /// What `tools` is for requests with this `x-user`.
    pub by_user: Mutex<std::collections::HashMap<String, Vec<Value>>>,
    pub prompts: Mutex<Vec<Value>>,
    pub resources: Mutex<Vec<Value>>,
    pub templates: Mutex<Vec<Value>>,
    /// Results of other methods, by method.
    pub results: Mutex<HashMap<String, Value>>,
    /// Issues session ids and insists on them.
    pub sessions: AtomicBool,
    pub page_size: AtomicUsize,
    /// Always says that there is a next page.
    pub endless: AtomicBool,
    /// Answers `tools/call` with this status and an HTML page; 0 is off.
    pub call_status: AtomicU16,
    /// Answers everything with this status; 0 is off.
    pub status: AtomicU16,
    /// Accepts and never answers.
    pub hang: AtomicBool,
    /// Accepts calls and never answers them.
    pub hang_calls: AtomicBool,
    /// Breaks the connection instead of answering.
    pub reset: AtomicBool,
    /// Answers everything with what is no JSON.
    pub garbage: AtomicBool,
    /// Answers everything with a body that does not end.
    pub flood: AtomicBool,
    /// Compresses answers for those who accept it.
    pub gzip: AtomicBool,
    /// Answers `prompts/list` with an error.
    pub prompts_fail: AtomicBool,
    /// Refuses `notifications/initialized` of all but the broker's own connection.
    pub refuse_initialized: AtomicBool,
    /// So many pings are answered with status 500.
    pub pings_fail: AtomicUsize,
    /// GET answers with this status instead of a stream; 0 is off.
    pub get_status: AtomicU16,
    pub init_delay_ms: AtomicUsize,
    pub call_delay_ms: AtomicUsize,
    pub version: Mutex<String>,
    pub events: broadcast::Sender<String>,
    pub seen: Mutex<Vec<Seen>>,
    live: Mutex<HashSet<String>>,
    counter: AtomicUsize,
    /// Questions to clients: session and raw id, and who waits for the answer.
    asked: Mutex<HashMap<(String, String), oneshot::Sender<Value>>>,
}

pub fn tool(name: &str) -> Value {
    json!({"name": name, "title": format!("Title of {name}"), "inputSchema": {"type": "object", "properties": {"day": {"type": ["string", "null"]}}}, "annotations": {"readOnlyHint": true}, "x": 1})
}

impl Server {
    pub async fn start(name: &'static str, tools: &[&str]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, name, tools).await
    }

    pub async fn start_on(listener: TcpListener, name: &'static str, tools: &[&str]) -> Arc<Self> {
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            name,
            tools: Mutex::new(tools.iter().map(|name| tool(name)).collect()),
            by_user: Mutex::default(),
            prompts: Mutex::default(),
            resources: Mutex::default(),
            templates: Mutex::default(),
            results: Mutex::default(),
            sessions: AtomicBool::new(true),
            page_size: AtomicUsize::new(100),
            endless: AtomicBool::default(),
            call_status: AtomicU16::default(),
            status: AtomicU16::default(),
            hang: AtomicBool::default(),
            hang_calls: AtomicBool::default(),
            reset: AtomicBool::default(),
            garbage: AtomicBool::default(),
            flood: AtomicBool::default(),
            gzip: AtomicBool::default(),
            prompts_fail: AtomicBool::default(),
            refuse_initialized: AtomicBool::default(),
            pings_fail: AtomicUsize::default(),
            get_status: AtomicU16::default(),
            init_delay_ms: AtomicUsize::default(),
            call_delay_ms: AtomicUsize::default(),
            version: Mutex::new("2025-11-25".to_owned()),
            events: broadcast::channel(16).0,
            seen: Mutex::default(),
            live: Mutex::default(),
            counter: AtomicUsize::default(),
            asked: Mutex::default(),
        });
        let app = Router::new()
            .fallback(any(handle))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Requests with this MCP method that did not come from the broker's own connection.
    pub fn calls(&self, method: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.mcp_method() == method && seen.header("user-agent") != Some("mcp-broker"))
            .cloned()
            .collect()
    }

    pub fn count(&self, check: impl Fn(&Seen) -> bool) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| check(seen))
            .count()
    }

    /// Ends all sessions, as a restart would.
    pub fn forget_sessions(&self) {
        self.live.lock().unwrap().clear();
    }

    /// Sends a question on all streams; who gives the answer of this session is told.
    pub fn ask(&self, session: &str, question: &Value) -> oneshot::Receiver<Value> {
        let (sender, answer) = oneshot::channel();
        let key = (session.to_owned(), question["id"].to_string());
        self.asked.lock().unwrap().insert(key, sender);
        self.say(question);
        answer
    }

    /// Sends a message on all streams.
    pub fn say(&self, message: &Value) {
        let _ = self.events.send(message.to_string());
    }

    /// How often the stream of this session was opened.
    pub fn streams(&self, session: &str) -> usize {
        self.count(|seen| seen.verb == Method::GET && seen.header("mcp-session-id") == Some(session))
    }

    pub fn notify(&self, method: &str) {
        let _ = self
            .events
            .send(json!({"jsonrpc": "2.0", "method": method}).to_string());
    }
}

/// What a broken server answers everything with.
async fn failing(server: &Server, verb: &Method) -> Option<Response> {
    if server.hang.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    if server.reset.load(Ordering::Relaxed) {
        // The end of its task drops the connection.
        std::panic::resume_unwind(Box::new("reset"));
    }
    let status = server.status.load(Ordering::Relaxed);
    if status != 0 {
        return Some((StatusCode::from_u16(status).unwrap(), "failing").into_response());
    }
    if verb != Method::POST {
        return None;
    }
    let json = [("content-type", "application/json")];
    if server.garbage.load(Ordering::Relaxed) {
        return Some((json, "{]").into_response());
    }
    let endless = || {
        let chunk = Bytes::from_static(&[b' '; 65_536]);
        Body::from_stream(futures::stream::repeat_with(move || {
            Ok::<_, std::convert::Infallible>(chunk.clone())
        }))
    };
    server
        .flood
        .load(Ordering::Relaxed)
        .then(|| (json, endless()).into_response())
}

async fn handle(
    State(server): State<Arc<Server>>,
    verb: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    server.seen.lock().unwrap().push(Seen {
        verb: verb.clone(),
        path,
        headers: headers.clone(),
        body: body.clone(),
    });
    if let Some(failing) = failing(&server, &verb).await {
        return failing;
    }
    let session = headers
        .get("mcp-session-id")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    match verb {
        Method::GET if headers.contains_key("last-event-id") => return resumed(&server, &headers),
        Method::GET => return stream(&server),
        Method::DELETE => {
            server.live.lock().unwrap().remove(&session.unwrap_or_default());
            return StatusCode::OK.into_response();
        }
        _ => {}
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    if method == "initialize" {
        return initialize(&server, &message).await;
    }
    if message.get("method").is_none() {
        let key = (session.unwrap_or_default(), message["id"].to_string());
        let asked = server.asked.lock().unwrap().remove(&key);
        return match asked {
            Some(waiting) => {
                let _ = waiting.send(message);
                StatusCode::ACCEPTED.into_response()
            }
            None => (StatusCode::BAD_REQUEST, "nobody asked").into_response(),
        };
    }
    let known = session
        .as_ref()
        .is_some_and(|session| server.live.lock().unwrap().contains(session));
    if server.sessions.load(Ordering::Relaxed) && !known {
        return (StatusCode::NOT_FOUND, "no such session").into_response();
    }
    if message.get("id").is_none() {
        return notified(&server, &method, &headers).into_response();
    }
    if method == "tools/call" {
        waits(&server).await;
    }
    if method == "tools/call" && message["params"]["name"] == "ask" {
        return ask(&server, session.unwrap_or_default(), message);
    }
    answer(&server, &method, &message, &headers, &body)
}

/// How long a call takes.
async fn waits(server: &Server) {
    if server.hang_calls.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let delay = server.call_delay_ms.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(delay as u64)).await;
}

fn notified(server: &Server, method: &str, headers: &HeaderMap) -> StatusCode {
    let own = headers
        .get("user-agent")
        .is_some_and(|agent| agent == "mcp-broker");
    if method == "notifications/initialized" && !own && server.refuse_initialized.load(Ordering::Relaxed) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::ACCEPTED
}

/// A tool whose reply is an event stream: it sends the messages `arguments.say`, asks the client `arguments.ask`, and its
/// result is the client's answer, or `arguments.content`.
fn ask(server: &Arc<Server>, session: String, message: Value) -> Response {
    let arguments = message["params"]["arguments"].clone();
    let (sender, answer) = oneshot::channel();
    let question = arguments["ask"].clone();
    if question.is_null() {
        let _ = sender.send(Value::Null);
    } else {
        let key = (session, question["id"].to_string());
        server.asked.lock().unwrap().insert(key, sender);
    }
    let said = arguments["say"].as_array().cloned().unwrap_or_default();
    let first: Vec<String> = said
        .iter()
        .chain((!question.is_null()).then_some(&question))
        .map(|message| format!("event: message\ndata: {message}\n\n"))
        .collect();
    let last = async move {
        let answer = answer.await.unwrap_or_default();
        let mut result = json!({"content": [{"type": "text", "text": "asked"}], "answer": answer});
        if let Some(content) = arguments.get("content") {
            result["content"] = content.clone();
        }
        let message = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        format!("event: message\ndata: {message}\n\n")
    };
    let events = futures::stream::iter(first)
        .chain(futures::stream::once(last))
        .map(Ok::<_, std::convert::Infallible>);
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

async fn initialize(server: &Server, message: &Value) -> Response {
    let delay = server.init_delay_ms.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(delay as u64)).await;
    let result = json!({
        "protocolVersion": *server.version.lock().unwrap(),
        "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {}, "completions": {}, "logging": {}},
        "serverInfo": {"name": server.name, "version": "1"},
    });
    let mut response =
        axum::Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response();
    if server.sessions.load(Ordering::Relaxed) {
        let id = format!(
            "{}-{}",
            server.name,
            server.counter.fetch_add(1, Ordering::Relaxed)
        );
        server.live.lock().unwrap().insert(id.clone());
        response
            .headers_mut()
            .insert("mcp-session-id", id.parse().unwrap());
    }
    response
}

fn stream(server: &Server) -> Response {
    let status = server.get_status.load(Ordering::Relaxed);
    if status != 0 {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let events = tokio_stream::wrappers::BroadcastStream::new(server.events.subscribe());
    let body = events
        .map(|event| Ok::<_, std::convert::Infallible>(format!("data: {}\n\n", event.unwrap_or_default())));
    ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
}

/// The rest of a stream that was cut: a question, and the result.
fn resumed(server: &Server, headers: &HeaderMap) -> Response {
    let last = headers["last-event-id"].to_str().unwrap();
    let status = server.get_status.load(Ordering::Relaxed);
    if status != 0 {
        return (StatusCode::from_u16(status).unwrap(), "gone").into_response();
    }
    if !last.starts_with(server.name) {
        return (StatusCode::BAD_REQUEST, "not my stream").into_response();
    }
    let messages = [
        json!({"jsonrpc": "2.0", "id": 9, "method": "roots/list"}),
        json!({"jsonrpc": "2.0", "id": 7, "result": {"after": last}}),
    ];
    let events: String = messages
        .iter()
        .map(|message| format!("id: {last}-next\ndata: {message}\n\n"))
        .collect();
    ([("content-type", "text/event-stream")], events).into_response()
}

fn ping_fails(server: &Server) -> bool {
    let one_less = |left: usize| left.checked_sub(1);
    let failing = &server.pings_fail;
    failing
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
}

fn answer(server: &Server, method: &str, message: &Value, headers: &HeaderMap, body: &Bytes) -> Response {
    let list =
        |member: &str, items: &Mutex<Vec<Value>>| page(server, member, &items.lock().unwrap(), message);
    let result = match method {
        "ping" if ping_fails(server) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "ping" => json!({}),
        "tools/list" => {
            let user = headers.get("x-user").and_then(|user| user.to_str().ok());
            let by_user = server.by_user.lock().unwrap();
            match user.and_then(|user| by_user.get(user)) {
                Some(own) => page(server, "tools", own, message),
                None => list("tools", &server.tools),
            }
        }
        "prompts/list" if server.prompts_fail.load(Ordering::Relaxed) => {
            return axum::Json(json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "no prompts today"}})).into_response();
        }
        "prompts/list" => list("prompts", &server.prompts),
        "resources/list" => list("resources", &server.resources),
        "resources/templates/list" => list("resourceTemplates", &server.templates),
        "tools/call" if server.call_status.load(Ordering::Relaxed) != 0 => {
            let status = StatusCode::from_u16(server.call_status.load(Ordering::Relaxed)).unwrap();
            return (
                status,
                [
                    ("content-type", "text/html"),
                    ("www-authenticate", "Bearer realm=\"inner\""),
                ],
                "<h1>inner</h1>",
            )
                .into_response();
        }
        _ if server.results.lock().unwrap().contains_key(method) => {
            server.results.lock().unwrap()[method].clone()
        }
        _ => {
            let seen: Vec<(String, String)> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()))
                .collect();
            json!({"content": [{"type": "text", "text": server.name}], "headers": seen, "body": String::from_utf8_lossy(body)})
        }
    };
    // The id goes back as it stands in the body, digit for digit.
    let raw: HashMap<&str, &serde_json::value::RawValue> = serde_json::from_slice(body).unwrap();
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
        raw["id"].get()
    );
    let gzip = headers
        .get("accept-encoding")
        .is_some_and(|value| value.to_str().unwrap_or_default().contains("gzip"));
    if gzip && server.gzip.load(Ordering::Relaxed) {
        use std::io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        let types = [("content-type", "application/json"), ("content-encoding", "gzip")];
        return (types, packed.finish().unwrap()).into_response();
    }
    ([("content-type", "application/json")], text).into_response()
}

fn page(server: &Server, member: &str, items: &[Value], message: &Value) -> Value {
    let size = server.page_size.load(Ordering::Relaxed);
    let start = message["params"]["cursor"]
        .as_str()
        .and_then(|cursor| cursor.parse().ok())
        .unwrap_or(0);
    let end = items.len().min(start + size);
    let mut result = json!({member: items.get(start..end).unwrap_or_default()});
    if server.endless.load(Ordering::Relaxed) {
        result["nextCursor"] = json!(server.counter.fetch_add(1, Ordering::Relaxed).to_string());
    } else if end < items.len() {
        result["nextCursor"] = json!(end.to_string());
    }
    result
}
