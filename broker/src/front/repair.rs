//! `/mcp/repair`: the guard in Envoy asks what replaces a failed reply of a server (data-plane.md 8.8). Only a sealed
//! context is answered, so nobody else can use it.

use super::FrontState;
use super::mcp::plain;
use crate::auth::seal;
use crate::decision::repair::{Context, FailedReply, UserToken, Verdict, fingerprint, judge};
use crate::decision::user_token::{self, Entry};
use crate::pipeline::facts::REPLAY_PURPOSE;
use crate::protocol::reply::{INTERNAL, Refusal, error};
use crate::protocol::{header, server_message};
use crate::sessions::hairpin::as_client;
use crate::sessions::store::Change;
use crate::transport::exchange;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use mcp_gateway_api::envoy_filter::{
    REPAIR_ACTION_HEADER, REPAIR_DETAILS_HEADER, REPAIR_STATUS_HEADER, REPAIR_TYPE_HEADER, SEAL_HEADER,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// A call that is sent once more; the guard waits for 9 s.
const REPEAT: Duration = Duration::from_secs(8);
/// Largest answer of it, bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Purpose of the seal; the router makes it with the same word.
pub const PURPOSE: &str = "repair";

/// Answers the guard.
pub async fn handle(State(state): State<Arc<FrontState>>, headers: HeaderMap) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let Some(context) = seal::open::<Context>(&state.keys, PURPOSE, text(SEAL_HEADER)) else {
        return plain(StatusCode::NOT_FOUND, "not found");
    };
    let Ok(status) = text(REPAIR_STATUS_HEADER).parse::<u16>() else {
        return plain(StatusCode::BAD_REQUEST, "bad request");
    };
    let reply = FailedReply {
        status,
        details: text(REPAIR_DETAILS_HEADER),
        content_type: text(REPAIR_TYPE_HEADER),
    };
    match replacement(&state, &context, &reply).await {
        Replacement::Keep => answer(status, "keep", String::new()),
        Replacement::Answer { status, body } => answer(status, "replace", body),
        Replacement::SessionLost { status, body } => match repeated(&state, &context).await {
            Some(repeated) => repeated,
            None => answer(status, "replace", body),
        },
    }
}

/// What a client gets in place of a failed reply.
pub(super) enum Replacement {
    /// The reply as it is.
    Keep,
    /// Another one.
    Answer {
        /// HTTP status.
        status: u16,
        /// JSON-RPC error.
        body: String,
    },
    /// The server has lost the session, whose mapping is dropped: the call may be sent once more, else this is the answer.
    SessionLost {
        /// HTTP status.
        status: u16,
        /// JSON-RPC error.
        body: String,
    },
}

/// Decides about a failed reply, and drops what it shows to be gone.
pub(super) async fn replacement(
    state: &FrontState,
    context: &Context,
    reply: &FailedReply<'_>,
) -> Replacement {
    if let (401, "via_upstream", Some(user)) = (reply.status, reply.details, &context.user) {
        return visit_again(state, context, user).await;
    }
    let catalog = state.published.load();
    let may_challenge = catalog.server(&context.server).is_some_and(|server| {
        server
            .config
            .forward_headers
            .iter()
            .any(|name| name == "authorization")
    });
    match judge(context, reply, may_challenge) {
        Verdict::Keep => Replacement::Keep,
        Verdict::Replace {
            status,
            body,
            session_lost: true,
        } => {
            forget(state, context).await;
            Replacement::SessionLost { status, body }
        }
        Verdict::Replace { status, body, .. } => Replacement::Answer { status, body },
    }
}

/// The server refused the person's token: it is dropped, and the person asked for another one.
async fn visit_again(state: &FrontState, context: &Context, user: &UserToken) -> Replacement {
    let id = Uuid::new_v4();
    let Entry { jti, exp, server, .. } = &user.entry;
    let dropped = Change::Token(server.clone(), None);
    let entry = serde_json::to_string(&user.entry).unwrap_or_default();
    let stored = match state.store.change(*jti, *exp, dropped).await {
        Ok(_) if user.stateless => Ok(()),
        Ok(_) => state.store.put_elicitation(id, entry).await,
        Err(error) => Err(error),
    };
    let refusal = match stored {
        Ok(()) if user.stateless => user_token::refused(),
        Ok(()) => user_token::required(&user.page, id),
        Err(_) => Refusal::new(503, INTERNAL, "session store unavailable", "store"),
    };
    Replacement::Answer {
        status: refusal.status,
        body: refusal.body(context.id.as_deref()),
    }
}

/// Drops the mapping if it is still the one that the call used.
async fn forget(state: &FrontState, context: &Context) {
    let Ok(facts) = state.store.facts(context.jti, &context.server).await else {
        return;
    };
    let Some(backend) = facts
        .backend
        .filter(|backend| fingerprint(backend) == context.backend)
    else {
        return;
    };
    let _ = state.store.forget(context.jti, &context.server, &backend).await;
    tracing::info!(component = "router", server = context.server, session = %format_args!("jti:{}", context.jti), "Backend session lost");
}

/// Sends the call once more, on a new backend session: the server has not run it. `None` when it was not kept.
async fn repeated(state: &FrontState, context: &Context) -> Option<Response> {
    let (opener, number) = (state.opener.as_ref()?, context.kept?);
    let call = state.kept.take(number, context.jti)?;
    let mut headers = as_client(&call.fields);
    let mark = seal::seal(&state.keys, REPLAY_PURPOSE, &context.jti);
    headers.insert(header::REPLAY, HeaderValue::from_str(&mark).ok()?);
    let body = String::from_utf8(call.body).ok()?;
    let sent = async {
        let response = opener.again(headers, &call.host, body).await?;
        let status = response.status().as_u16();
        exchange::body(response, MAX_ANSWER)
            .await
            .map(|body| (status, body))
    };
    Some(match timeout(REPEAT, sent).await {
        // It may be running: nobody is told to call again.
        Err(_) => {
            let text = error(context.id.as_deref(), INTERNAL, "MCP server timed out", None);
            answer(504, "replace", text)
        }
        Ok(sent) => {
            let (status, body) = sent.ok()?;
            let text = String::from_utf8(body.to_vec()).ok()?;
            server_message::read(text.trim())?;
            answer(status, "replace", text)
        }
    })
}

fn answer(status: u16, action: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(REPAIR_ACTION_HEADER, HeaderValue::from_static(action));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/json"));
    response
}
