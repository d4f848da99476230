//! Fast MCP servers, many in one process: `/s/<n>/mcp` is server `n`, each with the same tools. They answer from bytes made
//! at the start and do nothing else, so that what is measured is the gateway.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

const SESSION: &str = "mcp-session-id";
const CHANGED: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

/// Options of `bench mock`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Tools of each server.
    #[arg(long, default_value_t = 50)]
    tools: usize,
    /// Milliseconds until a call is answered.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Calls are answered as an event stream.
    #[arg(long)]
    sse: bool,
}

/// How a server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// Not at all.
    None,
    /// It never answers.
    Hung,
    /// It breaks the connection.
    Reset,
    /// It answers what is no JSON.
    Garbage,
    /// Its answers to the gateway's own requests have no end; the gateway reads 16 MiB of them.
    Flood,
    /// It refuses everything in every other second.
    Flap,
    /// Its list is another one every 10 ms, and it says so.
    Change,
}

impl Fault {
    /// As the path of the control has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hung => "hung",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::Flood => "flood",
            Self::Flap => "flap",
            Self::Change => "change",
        }
    }
}

struct Servers {
    tools: usize,
    latency: Duration,
    sse: bool,
    /// Which server misbehaves, and how.
    fault: watch::Sender<(usize, Fault)>,
    begun: Instant,
    /// The list of `tools` tools, without the envelope.
    list: String,
    sessions: AtomicUsize,
    /// Tools that came later, and the listeners, by server.
    changes: Mutex<HashMap<usize, Change>>,
}

struct Change {
    more: usize,
    streams: broadcast::Sender<()>,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            more: 0,
            streams: broadcast::channel(4).0,
        }
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: std::borrow::Cow<'a, str>,
}

/// One tool with a schema as real servers have them: about 900 bytes.
fn tool(number: usize) -> serde_json::Value {
    let text =
        "Looks up what the caller asks for and returns it with everything that a model needs to go on with. ";
    let property = |name: &str| json!({"type": "string", "description": format!("The {name} of the thing that is looked up; defaults to none")});
    json!({
        "name": format!("tool_{number}"),
        "title": format!("Tool {number}"),
        "description": text.repeat(3),
        "inputSchema": {"type": "object", "required": ["query"], "properties": {
            "query": property("query"), "region": property("region"), "language": property("language"),
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        }},
        "annotations": {"readOnlyHint": true, "openWorldHint": false},
    })
}

fn list(count: usize) -> String {
    let tools: Vec<serde_json::Value> = (0..count).map(tool).collect();
    json!({"tools": tools}).to_string()
}

/// Serves until the process is killed.
pub(crate) async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let servers = Arc::new(Servers {
        tools: arguments.tools,
        latency: Duration::from_millis(arguments.latency),
        sse: arguments.sse,
        fault: watch::Sender::new((0, Fault::None)),
        begun: Instant::now(),
        list: list(arguments.tools),
        sessions: AtomicUsize::new(0),
        changes: Mutex::default(),
    });
    let router = Router::new()
        .route(
            "/s/{server}/mcp",
            post(on_post).get(on_get).delete(|| async { StatusCode::OK }),
        )
        .route("/change/{server}", post(on_change))
        .route("/fault/{server}/{fault}", post(on_fault))
        .route(
            "/sessions",
            get(async |State(servers): State<Arc<Servers>>| {
                servers.sessions.load(Ordering::Relaxed).to_string()
            }),
        )
        .with_state(servers);
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

/// Adds a tool to a server and says so to everybody who listens.
async fn on_change(State(servers): State<Arc<Servers>>, Path(server): Path<usize>) -> StatusCode {
    servers.change(server, |more| more + 1);
    StatusCode::ACCEPTED
}

/// Makes a server misbehave from now on, and nobody else.
async fn on_fault(
    State(servers): State<Arc<Servers>>,
    Path((server, fault)): Path<(usize, Fault)>,
) -> StatusCode {
    servers.fault.send_replace((server, fault));
    // The gateway's own connection is to meet it, too.
    servers.change(server, |more| more);
    if fault == Fault::Change {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while *servers.fault.borrow() == (server, fault) {
                servers.change(server, |more| (more + 1) % 8);
                ticks.tick().await;
            }
            servers.change(server, |_| 0);
        });
    }
    StatusCode::ACCEPTED
}

impl Servers {
    /// Changes how many tools a server has more, and tells everybody who listens.
    fn change(&self, server: usize, more: impl Fn(usize) -> usize) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let change = changes.entry(server).or_default();
        change.more = more(change.more);
        // Nobody may listen.
        let _ = change.streams.send(());
    }

    /// What a server that misbehaves answers.
    async fn failing(&self, server: usize, method: &str) -> Option<Response<Body>> {
        let (who, fault) = *self.fault.borrow();
        match fault {
            _ if who != server => None,
            Fault::None | Fault::Change => None,
            Fault::Hung => {
                // It ends only with the process.
                let _ = self.fault.subscribe().wait_for(|now| *now != (who, fault)).await;
                None
            }
            // The end of its task drops the connection.
            Fault::Reset => std::panic::resume_unwind(Box::new("reset")),
            Fault::Garbage => Some(answer("application/json", Body::from("{]"))),
            Fault::Flood if method == "tools/call" => None,
            Fault::Flood => {
                let chunk = || Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 65_536]));
                let endless = futures::stream::repeat_with(chunk);
                Some(answer("application/json", Body::from_stream(endless)))
            }
            Fault::Flap => {
                let refuses = self.begun.elapsed().as_secs().is_multiple_of(2);
                refuses.then(|| status(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }
}

async fn on_get(State(servers): State<Arc<Servers>>, Path(server): Path<usize>) -> Response<Body> {
    let changes = {
        let mut changes = servers.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.entry(server).or_default().streams.subscribe()
    };
    let events = BroadcastStream::new(changes)
        .map(|_| Ok::<_, std::convert::Infallible>(Bytes::from_static(CHANGED.as_bytes())));
    answer("text/event-stream", Body::from_stream(events))
}

async fn on_post(
    State(servers): State<Arc<Servers>>,
    Path(server): Path<usize>,
    body: Bytes,
) -> Response<Body> {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
        return status(StatusCode::BAD_REQUEST);
    };
    if let Some(failing) = servers.failing(server, &message.method).await {
        return failing;
    }
    let Some(id) = message.id else {
        return status(StatusCode::ACCEPTED);
    };
    match message.method.as_ref() {
        "initialize" => {
            let number = servers.sessions.fetch_add(1, Ordering::Relaxed);
            let result = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"mock","version":"1"}}"#;
            let mut response = answer("application/json", Body::from(envelope(id, result)));
            if let Ok(session) = HeaderValue::from_str(&format!("session-{number}")) {
                response.headers_mut().insert(SESSION, session);
            }
            response
        }
        "tools/list" => {
            let more = servers
                .changes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&server)
                .map_or(0, |change| change.more);
            let text = if more == 0 {
                servers.list.clone()
            } else {
                list(servers.tools + more)
            };
            answer("application/json", Body::from(envelope(id, &text)))
        }
        "tools/call" => called(&servers, id).await,
        _ => answer("application/json", Body::from(envelope(id, "{}"))),
    }
}

async fn called(servers: &Servers, id: &RawValue) -> Response<Body> {
    if !servers.latency.is_zero() {
        tokio::time::sleep(servers.latency).await;
    }
    let text = envelope(
        id,
        r#"{"content":[{"type":"text","text":"It is 21 degrees and sunny."}],"isError":false}"#,
    );
    if servers.sse {
        answer(
            "text/event-stream",
            Body::from(format!("event: message\ndata: {text}\n\n")),
        )
    } else {
        answer("application/json", Body::from(text))
    }
}

fn envelope(id: &RawValue, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn answer(kind: &'static str, body: Body) -> Response<Body> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}
