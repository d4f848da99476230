//! Clients of 2024-11-05 (data-plane.md 13, `legacySSE`): `/sse` is their stream, which names an address for their messages.
//! Each message becomes a request to the MCP endpoint, in the session that the first one opened; what the endpoint answers
//! goes onto the stream. Nothing is decided here: origins, tokens and sessions are the endpoint's.

use super::FrontState;
use super::admitted::admitted;
use super::body::read_body;
use super::mcp::{self, event_stream, head_of, plain, refuse};
use super::status::hidden;
use super::streams::{KEEP_ALIVE, MAX_PER_IDENTITY};
use crate::auth::session;
use crate::decision::Head;
use crate::protocol::message::{self, MessageKind};
use crate::protocol::reply::{INTERNAL, Refusal, error};
use crate::protocol::{header, sse};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Where the stream is opened.
pub const STREAM: &str = "/sse";
/// Where messages are sent.
pub const MESSAGES: &str = "/messages";
/// Streams of such clients at once.
const MAX_CLIENTS: usize = 1000;
/// Messages of one client that are being worked on.
const MAX_RUNNING: usize = 64;
/// Events that wait for a client; past it its stream ends.
const QUEUE: usize = 256;
/// Headers that belong to the client's own request.
const OWN: [&str; 5] = [
    "accept",
    "content-type",
    "content-length",
    header::SESSION,
    header::PROTOCOL_VERSION,
];

/// The clients with an open stream, by the secret in the address of their messages.
#[derive(Default)]
pub struct OlderClients(Mutex<HashMap<Uuid, Arc<Older>>>);

/// One client.
struct Older {
    events: mpsc::Sender<String>,
    /// Who opened the stream: nobody else's messages are answered on it.
    binding: Option<String>,
    /// Token of its session, once it has one.
    session: OnceLock<HeaderValue>,
    running: Arc<Semaphore>,
    /// Its stream is over.
    ended: CancellationToken,
}

impl OlderClients {
    fn insert(&self, id: Uuid, client: Arc<Older>) -> bool {
        self.0.lock().is_ok_and(|mut clients| {
            let bound = client.binding.as_deref();
            let of_identity = |known: &&Arc<Older>| known.binding.as_deref() == bound;
            let free = clients.len() < MAX_CLIENTS
                && (bound.is_none() || clients.values().filter(of_identity).count() < MAX_PER_IDENTITY);
            if free {
                clients.insert(id, client);
            }
            free
        })
    }

    fn get(&self, id: Uuid) -> Option<Arc<Older>> {
        self.0.lock().ok()?.get(&id).cloned()
    }

    fn remove(&self, id: Uuid) -> Option<Arc<Older>> {
        self.0.lock().ok()?.remove(&id)
    }
}

impl Older {
    /// Puts a message onto the stream; a client that does not read loses the stream.
    fn tell(&self, text: &str) {
        // A line break ends a field of an event; in JSON it stands between tokens only.
        let text = text.trim().replace(['\n', '\r'], " ");
        if self.events.try_send(sse::encode(None, &text)).is_err() {
            self.ended.cancel();
        }
    }
}

fn is_served(state: &FrontState) -> bool {
    let catalog = state.published.load();
    let config = catalog.config.snapshot.as_deref();
    config.is_some_and(|config| config.front.legacy_sse)
}

/// `GET /sse`.
pub async fn stream(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    if !is_served(&state) || request.method() != Method::GET {
        return hidden();
    }
    let (parts, _) = request.into_parts();
    let binding = match binding(&state, head_of(&Method::GET, STREAM, &parts.headers)).await {
        Ok(binding) => binding,
        Err(refused) => return refused,
    };
    let (events, inbox) = mpsc::channel(QUEUE);
    let (id, ended) = (Uuid::new_v4(), CancellationToken::new());
    let client = Arc::new(Older {
        events,
        binding,
        session: OnceLock::new(),
        running: Arc::new(Semaphore::new(MAX_RUNNING)),
        ended: ended.clone(),
    });
    if state.health.is_draining() || !state.older.insert(id, client) {
        let busy = Refusal::new(503, INTERNAL, "busy", "streams").retry_after(1);
        return refuse(&busy, None);
    }
    let closing = state.streams.closing.clone();
    tokio::spawn(end((state, id), (ended.clone(), closing)));
    event_stream(Body::from_stream(events_of(id, inbox, ended)))
}

/// The stream: where messages go, then what the client is told.
fn events_of(
    id: Uuid,
    inbox: mpsc::Receiver<String>,
    ended: CancellationToken,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let endpoint = format!("event: endpoint\ndata: {MESSAGES}?sessionId={id}\n\n");
    let first = stream::once(std::future::ready(Ok(Bytes::from(endpoint))));
    let gone: DropGuard = ended.clone().drop_guard();
    let rest = stream::unfold((inbox, ended, gone), |(mut inbox, ended, gone)| async move {
        let text = tokio::select! {
            () = ended.cancelled() => return None,
            text = timeout(KEEP_ALIVE, inbox.recv()) => text,
        };
        let text = match text {
            Ok(text) => text?,
            Err(_) => ": keep-alive\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(text)), (inbox, ended, gone)))
    });
    first.chain(rest)
}

/// Waits for the end of a stream, which ends the session.
async fn end((state, id): (Arc<FrontState>, Uuid), (ended, closing): (CancellationToken, CancellationToken)) {
    tokio::select! {
        () = ended.cancelled() => {}
        () = closing.cancelled() => {}
    }
    ended.cancel();
    let client = state.older.remove(id);
    // The client's own token may have expired meanwhile.
    let token = client.and_then(|client| client.session.get()?.to_str().ok().map(str::to_owned));
    if let Some(claims) = token.and_then(|token| session::minted(&state.keys, &token)) {
        let _ = mcp::end(&state, &claims).await;
    }
}

/// A request to the MCP endpoint with what the client sends with its own.
fn inner(
    method: Method,
    (headers, session): (&HeaderMap, Option<&HeaderValue>),
    body: Body,
) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = axum::http::Uri::from_static("/mcp");
    *request.headers_mut() = headers.clone();
    let all = request.headers_mut();
    for name in OWN {
        all.remove(name);
    }
    all.insert("content-type", HeaderValue::from_static("application/json"));
    let both = HeaderValue::from_static("application/json, text/event-stream");
    all.insert("accept", both);
    if let Some(session) = session {
        all.insert(header::SESSION, session.clone());
    }
    request
}

/// `POST /messages`.
pub async fn message(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    if !is_served(&state) || request.method() != Method::POST {
        return hidden();
    }
    let (parts, body) = request.into_parts();
    let binding = match binding(&state, head_of(&Method::POST, MESSAGES, &parts.headers)).await {
        Ok(binding) => binding,
        Err(refused) => return refused,
    };
    let client = parts.uri.query().and_then(|query| named(&state, query));
    let Some(client) = client.filter(|client| client.binding == binding) else {
        return plain(StatusCode::NOT_FOUND, "no such session: open /sse first");
    };
    if !parts
        .headers
        .get("content-type")
        .is_some_and(|kind| kind.to_str().is_ok_and(header::is_json))
    {
        return plain(
            StatusCode::BAD_REQUEST,
            "Invalid content type: must be 'application/json'",
        );
    }
    let Ok(slot) = Arc::clone(&client.running).try_acquire_owned() else {
        return refuse(&Refusal::new(429, INTERNAL, "busy", "calls").retry_after(1), None);
    };
    let body = match read_body(body, state.rules.max_body).await {
        Ok(body) => body,
        Err(refusal) => return refuse(&refusal, None),
    };
    let read = match message::read(&body) {
        Ok(read) => read,
        Err(error) => return refuse(&error.refusal(), error.id()),
    };
    let id = read
        .id
        .filter(|_| read.kind == MessageKind::Request)
        .map(str::to_owned);
    let opens = id.is_some() && read.method == "initialize";
    tokio::spawn(async move {
        let ended = client.ended.clone();
        tokio::select! {
            () = ended.cancelled() => {}
            () = carried_out((state, client), parts.headers, (body, id, opens)) => {}
        }
        drop(slot);
    });
    plain(StatusCode::ACCEPTED, "Accepted")
}

/// Who asks, as sessions are bound to callers.
async fn binding(state: &FrontState, mut head: Head) -> Result<Option<String>, Response> {
    head.caller = admitted(state, &head).await?;
    Ok(head.binding(&state.keys).map(|binding| binding.current))
}

fn named(state: &FrontState, query: &str) -> Option<Arc<Older>> {
    let id = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "sessionId")
        .and_then(|(_, id)| Uuid::parse_str(&id).ok())?;
    state.older.get(id)
}

/// Asks the endpoint and tells the client what it answers.
async fn carried_out(
    (state, client): (Arc<FrontState>, Arc<Older>),
    headers: HeaderMap,
    (body, id, opens): (Bytes, Option<String>, bool),
) {
    let request = inner(Method::POST, (&headers, client.session.get()), Body::from(body));
    let answer = mcp::handle(State(Arc::clone(&state)), request).await;
    let session = answer.headers().get(header::SESSION).cloned();
    if let (true, Some(session)) = (opens, session)
        && client.session.set(session.clone()).is_ok()
    {
        tokio::spawn(unsolicited((state, Arc::clone(&client)), headers, session));
    }
    match (answer.status(), id) {
        // It was cancelled: nobody waits.
        (StatusCode::NO_CONTENT, _) => {}
        (status, Some(id)) if !status.is_success() => client.tell(&refused(answer, &id).await),
        _ => relay(&client, answer).await,
    }
}

/// The JSON-RPC error of a refusal.
#[derive(Deserialize)]
struct Refused {
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    code: i32,
    message: String,
}

/// A refusal as the answer to a request: a client of this revision waits on its stream for one to each.
async fn refused(answer: Response, id: &str) -> String {
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), sse::MAX_EVENT).await;
    let read = body
        .ok()
        .and_then(|body| serde_json::from_slice::<Refused>(&body).ok());
    let told = read.map_or_else(
        || Told {
            code: INTERNAL,
            message: format!("the gateway answered with HTTP status {status}"),
        },
        |refused| refused.error,
    );
    error(Some(id), told.code, &told.message, None)
}

/// What the gateway and the servers say by themselves.
async fn unsolicited(
    (state, client): (Arc<FrontState>, Arc<Older>),
    headers: HeaderMap,
    session: HeaderValue,
) {
    let request = inner(Method::GET, (&headers, Some(&session)), Body::empty());
    let ended = client.ended.clone();
    let listening = async {
        let answer = mcp::handle(State(state), request).await;
        if answer.status().is_success() {
            relay(&client, answer).await;
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = listening => {}
    }
}

/// Puts an answer onto the stream, its events one by one.
async fn relay(client: &Older, answer: Response) {
    let content_type = answer.headers().get("content-type");
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if header::is_json(content_type) {
        let body = axum::body::to_bytes(answer.into_body(), sse::MAX_EVENT).await;
        let body = body.ok().filter(|body| !body.is_empty());
        if let Some(text) = body.as_deref().and_then(|body| std::str::from_utf8(body).ok()) {
            client.tell(text);
        }
        return;
    }
    if !header::is_sse(content_type) {
        return;
    }
    let (mut chunks, mut decoder) = (answer.into_body().into_data_stream(), sse::Decoder::default());
    while let Some(Ok(chunk)) = chunks.next().await {
        let Ok(events) = decoder.push(&chunk) else { break };
        for event in events.iter().filter(|event| !event.data.trim().is_empty()) {
            client.tell(&event.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_one_identity_takes_so_many_streams_and_others_go_on() {
        let clients = OlderClients::default();
        let open = |binding: Option<&str>| {
            let client = Older {
                events: mpsc::channel(1).0,
                binding: binding.map(str::to_owned),
                session: OnceLock::new(),
                running: Arc::new(Semaphore::new(1)),
                ended: CancellationToken::new(),
            };
            clients.insert(Uuid::new_v4(), Arc::new(client))
        };
        for _ in 0..MAX_PER_IDENTITY {
            assert!(open(Some("alice")));
        }
        assert!(!open(Some("alice")));
        assert!(open(Some("bob")) && open(None));
    }
}
