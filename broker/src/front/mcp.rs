//! The MCP endpoint of the broker (data-plane.md 4.2–4.6): HTTP rules, sessions, GET and DELETE. The methods themselves
//! are in `methods`, requests without a session in `stateless`.

use super::admitted::admitted;
use super::body::read_body;
use super::forwarding::Incoming;
use super::span::traced;
use super::streams::NotOpened;
use super::{FrontState, meta_tools, methods, relay, stateless, streams, unsolicited};
use crate::aggregation::user_lists::{self, Own};
use crate::aggregation::view::Selection;
use crate::auth::pool::Behalf;
use crate::auth::session::SessionClaims;
use crate::auth::{clock, session};
use crate::decision::forward::LAST_EVENT_ID;
use crate::decision::stateless::{PATH, is_stateless, says_so};
use crate::decision::{Head, message as decision, selection};
use crate::protocol::message::{self, Message, MessageError, MessageKind};
use crate::protocol::reply::{INTERNAL, INVALID_REQUEST, Refusal};
use crate::protocol::{header, version};
use crate::sessions::hairpin::forwarded;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const CLOSE_ALL: Duration = Duration::from_secs(10);
/// Replies up to this length go out in one piece, bytes.
const COPIED: usize = 16 * 1024;

/// One request on `/mcp`.
pub async fn handle(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut head = head_of(&parts.method, parts.uri.path(), &parts.headers);
    if parts.method == Method::OPTIONS {
        return plain(StatusCode::OK, "");
    }
    match admitted(&state, &head).await {
        Ok(caller) => head.caller = caller,
        Err(refused) => return refused,
    }
    let sessionless = is_only_for_posts(&state, &head);
    match parts.method {
        Method::GET | Method::DELETE if sessionless => not_allowed("POST, OPTIONS"),
        Method::POST => post(&state, (&head, parts.headers), body).await,
        Method::GET => get(&state, &head, &parts.headers).await,
        Method::DELETE => delete(&state, &head).await,
        _ => not_allowed("GET, POST, DELETE, OPTIONS"),
    }
}

fn not_allowed(allowed: &'static str) -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    response
        .headers_mut()
        .insert("allow", HeaderValue::from_static(allowed));
    response
}

/// The stateless revision knows POST alone.
fn is_only_for_posts(state: &FrontState, head: &Head) -> bool {
    head.path_only() == PATH || (says_so(head) && !has_session(state, head))
}

/// The headers in the form that decisions read.
pub fn head_of(method: &Method, path: &str, headers: &HeaderMap) -> Head {
    let pseudo = [(":method", method.as_str()), (":path", path)]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let fields = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Head {
        fields: pseudo.into_iter().chain(fields).collect(),
        end_of_stream: false,
        caller: None,
    }
}

/// A text answer.
pub fn plain(status: StatusCode, text: &'static str) -> Response {
    respond(status, "text/plain; charset=utf-8", text.into())
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(content_type));
    response
}

/// An event stream that nobody between here and the client keeps or gathers.
pub(super) fn event_stream(body: Body) -> Response {
    let mut response = respond(StatusCode::OK, "text/event-stream", body);
    let headers = response.headers_mut();
    headers.insert("cache-control", HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A JSON answer, ended by a newline.
pub fn json(status: StatusCode, mut text: String) -> Response {
    text.push('\n');
    respond(status, "application/json", text.into())
}

/// A reply with this result; a long one is not copied.
pub(super) fn with_result(id: &str, [start, result, end]: [Bytes; 3]) -> Response {
    let opening = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#);
    let pieces = [opening.into(), start, result, end, Bytes::from_static(b"}\n")];
    let length: usize = pieces.iter().map(Bytes::len).sum();
    if length <= COPIED {
        return respond(StatusCode::OK, "application/json", pieces.concat().into());
    }
    let body = Body::from_stream(futures::stream::iter(pieces.map(Ok::<_, Infallible>)));
    let mut response = respond(StatusCode::OK, "application/json", body);
    response
        .headers_mut()
        .insert("content-length", HeaderValue::from(length));
    response
}

/// A refusal with the id of the request.
pub fn refuse(refusal: &Refusal, id: Option<&str>) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, refusal.body(id));
    if let Some(seconds) = refusal.retry_after {
        response
            .headers_mut()
            .insert("retry-after", HeaderValue::from(seconds));
    }
    let challenge = refusal.challenge.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(challenge)) = challenge {
        response.headers_mut().insert("www-authenticate", challenge);
    }
    response
}

async fn post(state: &Arc<FrontState>, (head, headers): (&Head, HeaderMap), body: Body) -> Response {
    if !head.get("content-type").is_some_and(header::is_json) {
        return plain(
            StatusCode::BAD_REQUEST,
            "Invalid content type: must be 'application/json'",
        );
    }
    let accepts = header::accepts(head.get("accept"));
    if !accepts.json && !accepts.sse {
        return refuse(
            &Refusal::new(406, INVALID_REQUEST, "not acceptable", "accept"),
            None,
        );
    }
    let body = match read_body(body, state.rules.max_body).await {
        Ok(body) => body,
        Err(refusal) => return refuse(&refusal, None),
    };
    let read = message::read(&body);
    match &state.forwarding {
        Some(forwarding) => {
            let incoming = Incoming {
                head,
                read: &read,
                body: &body,
            };
            forwarding.message(state, incoming, headers).await
        }
        None => here(state, head, (&read, &body)).await,
    }
}

/// Answers a message that is the gateway's own.
pub(super) async fn here(
    state: &Arc<FrontState>,
    head: &Head,
    (read, body): (&Result<Message<'_>, MessageError>, &[u8]),
) -> Response {
    let message = match read {
        Ok(message) => message,
        Err(error) => return refuse(&error.refusal(), error.id()),
    };
    let answered = on_message(state, head, (message, body));
    traced(&state.traces, (head, message), answered).await
}

async fn on_message(
    state: &Arc<FrontState>,
    head: &Head,
    (message, body): (&Message<'_>, &[u8]),
) -> Response {
    if is_stateless(head, message, || has_session(state, head)) {
        return stateless::answer(state, head, message).await;
    }
    if let Some(refusal) = wrong_version(head, message) {
        return refuse(&refusal, message.id);
    }
    if message.kind == MessageKind::Request && message.method == "initialize" {
        return methods::initialize(state, head, message);
    }
    let mut caller = match caller_of(state, head).await {
        Ok(caller) => caller,
        Err(refusal) => return refuse(&refusal, message.id),
    };
    if methods::shows_items(message) {
        caller.own = own_lists(state, &caller, head).await;
    }
    match message.kind {
        MessageKind::Request if message.method == "logging/setLevel" => {
            relay::set_level(state, (&caller, head), message).await
        }
        MessageKind::Request => match meta_tools::called(state, &caller, message) {
            Some(tool) => meta_tools::call(state, &caller, tool, message).await,
            None => methods::request(state, &caller, message),
        },
        MessageKind::Notification => {
            relay::notify_all(state, (&caller, head), (message, body)).await;
            respond(StatusCode::ACCEPTED, "text/plain; charset=utf-8", Body::empty())
        }
        MessageKind::Response => refuse(
            &Refusal::new(400, INVALID_REQUEST, "unknown request id", "response"),
            message.id,
        ),
    }
}

/// Whether the request has a session token of ours. Whether that session goes on is asked later.
fn has_session(state: &FrontState, head: &Head) -> bool {
    let (tokens, binding) = (head.all(header::SESSION), head.binding(&state.keys));
    matches!(tokens.as_slice(), [token]
        if session::verify(&state.keys, token, binding.as_ref(), clock::now()).is_some())
}

/// What the servers that list per caller list for this one.
async fn own_lists(state: &FrontState, caller: &Caller, head: &Head) -> Own {
    let catalog = state.published.load();
    if !user_lists::wanted(&catalog) {
        return Own::default();
    }
    state
        .user_lists
        .fetch(
            &catalog,
            &Behalf::of_session(&caller.claims),
            &forwarded(&head.fields),
        )
        .await
}

/// Who calls, with which filters.
pub struct Caller {
    /// Session.
    pub claims: SessionClaims,
    /// Filters.
    pub selection: Selection,
    /// What servers list for this caller alone.
    pub own: Own,
}

/// The version of a request with a session, or of one that has yet to open it, must be a known one (4.1).
fn wrong_version(head: &Head, message: &Message<'_>) -> Option<Refusal> {
    let in_header = head.get(header::PROTOCOL_VERSION);
    let unknown =
        in_header.is_some_and(|version| !version::is_known(version)) && message.method != "initialize";
    unknown.then(|| {
        Refusal::new(
            400,
            INVALID_REQUEST,
            "unsupported MCP-Protocol-Version",
            "version",
        )
    })
}

/// Who calls, by the live session of the request: 400 without token, 404 for everything that is none.
///
/// # Errors
/// The refusal.
pub async fn caller_of(state: &FrontState, head: &Head) -> Result<Caller, Refusal> {
    let tokens = head.all(header::SESSION);
    let token = match tokens.as_slice() {
        [] => {
            return Err(Refusal::new(
                400,
                INVALID_REQUEST,
                "missing Mcp-Session-Id",
                "session_missing",
            ));
        }
        [token] => token,
        _ => return Err(decision::session_not_found()),
    };
    let binding = head.binding(&state.keys);
    let now = clock::now();
    let claims =
        session::verify(&state.keys, token, binding.as_ref(), now).ok_or_else(decision::session_not_found)?;
    match state.store.record(claims.jti).await {
        Ok(record) if record.revoked => Err(decision::session_not_found()),
        Ok(record) => Ok(Caller {
            claims,
            own: Own::default(),
            selection: Selection {
                scope: record.scope.clone(),
                ..selection(head, &state.rules, now)
            },
        }),
        Err(_) => Err(Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1)),
    }
}

async fn get(state: &Arc<FrontState>, head: &Head, headers: &HeaderMap) -> Response {
    if let Some(forwarding) = &state.forwarding
        && let Some(resumed) = forwarding.resumption(state, head, headers).await
    {
        return resumed;
    }
    let caller = match caller_of(state, head).await {
        Ok(caller) => caller,
        Err(refusal) => return refuse(&refusal, None),
    };
    if !header::accepts(head.get("accept")).sse {
        return refuse(
            &Refusal::new(406, INVALID_REQUEST, "not acceptable", "accept"),
            None,
        );
    }
    if state.health.is_draining() {
        return refuse(
            &Refusal::new(503, INTERNAL, "busy", "draining").retry_after(1),
            None,
        );
    }
    let (claims, last) = (caller.claims, head.get(LAST_EVENT_ID));
    match streams::open(state, &claims, caller.selection, last) {
        Ok(opened) => {
            unsolicited::follow(state, claims, head, opened.ended);
            event_stream(opened.body)
        }
        Err(NotOpened::ForeignEvent) => refuse(
            &Refusal::new(400, INVALID_REQUEST, "unknown Last-Event-ID", "event_id"),
            None,
        ),
        Err(NotOpened::Busy) => refuse(
            &Refusal::new(429, INTERNAL, "busy", "streams").retry_after(1),
            None,
        ),
    }
}

async fn delete(state: &Arc<FrontState>, head: &Head) -> Response {
    let claims = match caller_of(state, head).await {
        Ok(caller) => caller.claims,
        Err(refusal) => return refuse(&refusal, None),
    };
    match end(state, &claims).await {
        Ok(()) => plain(StatusCode::OK, ""),
        Err(refusal) => refuse(&refusal, None),
    }
}

/// Ends a session, and in the background those with servers that it had.
///
/// # Errors
/// The refusal: it had ended, or the store does not answer.
pub(super) async fn end(state: &Arc<FrontState>, claims: &SessionClaims) -> Result<(), Refusal> {
    let backends = match state.store.revoke(claims.jti, claims.exp).await {
        Ok(Some(backends)) => backends,
        Ok(None) => return Err(decision::session_not_found()),
        Err(_) => {
            return Err(Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1));
        }
    };
    state.streams.close(claims.jti);
    state.metrics.sessions.deleted();
    tracing::info!(component = "broker", session = %format_args!("jti:{}", claims.jti), backends = backends.len(), "Session ended by its client");
    if let Some(opener) = state.opener.clone() {
        let catalog = state.published.load();
        tokio::spawn(async move {
            let closings = backends.iter().filter_map(|(server, backend)| {
                catalog
                    .server(server)
                    .map(|server| opener.close(&server.config, backend))
            });
            let _ = timeout(CLOSE_ALL, futures::future::join_all(closings)).await;
        });
    }
    Ok(())
}
