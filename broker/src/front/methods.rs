//! Requests that the gateway answers itself (data-plane.md 4.3, 4.5), legacy era. What belongs to a server never gets
//! an answer here: it came by the wrong way.

use super::FrontState;
use super::mcp::{Caller, json, refuse, with_result};
use crate::aggregation::lists::{Page, Paging, page};
use crate::aggregation::meta::INSTRUCTIONS;
use crate::aggregation::user_lists::PerCaller;
use crate::aggregation::view::View;
use crate::auth::clock;
use crate::auth::session::{NewSession, capability_letters, mint};
use crate::decision::{Head, bridge, target};
use crate::protocol::json::quoted;
use crate::protocol::message::{Message, MessageKind};
use crate::protocol::reply::{INTERNAL, INVALID_PARAMS, METHOD_NOT_FOUND, Refusal, result};
use crate::protocol::{header, version};
use crate::upstreams::items::ItemKind;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use std::time::Instant;

const CAPABILITIES: &str = r#"{"completions":{},"logging":{},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true}}"#;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct InitializeParams {
    protocol_version: Option<serde_json::Value>,
    capabilities: serde_json::Value,
}

/// `initialize`: a fresh session, whatever id the client sent.
pub fn initialize(state: &FrontState, head: &Head, message: &Message<'_>) -> Response {
    let Ok(params) = serde_json::from_str::<InitializeParams>(message.params.unwrap_or("{}")) else {
        return refuse(&invalid_params("params"), message.id);
    };
    if state.store.is_full() {
        return refuse(
            &Refusal::new(503, INTERNAL, "busy", "sessions").retry_after(1),
            message.id,
        );
    }
    let version = version::negotiate(
        params
            .protocol_version
            .as_ref()
            .and_then(serde_json::Value::as_str),
    );
    let new = NewSession {
        version,
        capabilities: capability_letters(&params.capabilities),
        binding: head.binding(&state.keys).map(|binding| binding.current),
        length: state.session_length,
    };
    let (token, claims) = mint(&state.keys, new, clock::now());
    state.metrics.sessions.created.inc();
    state.store.begun(claims.jti, claims.exp);
    tracing::debug!(component = "broker", session = %format_args!("jti:{}", claims.jti), version, "Session made");
    let instructions = if state.published.load().meta.enabled {
        format!(r#","instructions":{}"#, quoted(INSTRUCTIONS))
    } else {
        String::new()
    };
    let body = format!(
        r#"{{"protocolVersion":{},"capabilities":{CAPABILITIES},"serverInfo":{}{instructions}}}"#,
        quoted(version),
        bridge::server_info()
    );
    let mut response = json(StatusCode::OK, result(message.id.unwrap_or("null"), &body));
    if let Ok(token) = HeaderValue::from_str(&token) {
        response.headers_mut().insert(header::SESSION, token);
    }
    response
}

/// Every other request.
pub fn request(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Response {
    match (message.method.as_ref(), ItemKind::listed_by(&message.method)) {
        (_, Some(kind)) => list(state, caller, kind, message),
        ("ping", _) => ok(message, "{}"),
        ("completion/complete", _) => complete(state, caller, message),
        (
            "tools/call" | "prompts/get" | "resources/read" | "resources/subscribe" | "resources/unsubscribe",
            _,
        ) => refuse(
            &Refusal::new(200, INTERNAL, "call must go through the gateway", "direct"),
            message.id,
        ),
        (method, _) => refuse(
            &Refusal::new(
                200,
                METHOD_NOT_FOUND,
                format!("Method not found: {method}"),
                "method",
            ),
            message.id,
        ),
    }
}

/// Whether the answer depends on what servers list for the caller alone.
pub(super) fn shows_items(message: &Message<'_>) -> bool {
    message.kind == MessageKind::Request
        && (message.method == "tools/call"
            || message.method == "completion/complete"
            || ItemKind::listed_by(&message.method).is_some())
}

pub(super) fn ok(message: &Message<'_>, body: &str) -> Response {
    json(StatusCode::OK, result(message.id.unwrap_or("null"), body))
}

pub(super) fn invalid_params(what: &str) -> Refusal {
    Refusal::new(200, INVALID_PARAMS, format!("invalid {what}"), "params")
}

fn list(state: &FrontState, caller: &Caller, kind: ItemKind, message: &Message<'_>) -> Response {
    match listed(state, caller, kind, message) {
        Ok(page) => with_result(message.id.unwrap_or("null"), page.pieces("{}")),
        Err(refusal) => refuse(&refusal, message.id),
    }
}

/// The result of a list request: one page.
pub(super) fn listed(
    state: &FrontState,
    caller: &Caller,
    kind: ItemKind,
    message: &Message<'_>,
) -> Result<Page, Refusal> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ListParams {
        cursor: Option<String>,
    }
    let params = serde_json::from_str::<ListParams>(message.params.unwrap_or("{}"))
        .map_err(|_| invalid_params("cursor"))?;
    let started = Instant::now();
    let catalog = state.published.load();
    let own = PerCaller::merge(&catalog, &caller.own);
    let view = View::new(&catalog, &caller.selection).with(own.as_ref());
    let paging = Paging {
        keys: &state.keys,
        size: state.page_size,
        now: clock::now(),
    };
    let page = page(&view, &caller.selection, kind, params.cursor.as_deref(), &paging)
        .map_err(|_| invalid_params("cursor"))?;
    let calls = &state.metrics.calls;
    calls.listed(kind.word(), page.kept, started.elapsed());
    if kind == ItemKind::Tool {
        state.metrics.tools_list_bytes.observe(page.length() as f64);
    }
    Ok(page)
}

/// The router sends completions to servers that offer them: what comes here has no values, or an unknown reference.
fn complete(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Response {
    match completed(state, caller, message) {
        Ok(body) => ok(message, body),
        Err(refusal) => refuse(&refusal, message.id),
    }
}

/// The result of a completion that no server answers.
pub(super) fn completed(
    state: &FrontState,
    caller: &Caller,
    message: &Message<'_>,
) -> Result<&'static str, Refusal> {
    let target = target::target(message)?;
    let catalog = state.published.load();
    let own = PerCaller::merge(&catalog, &caller.own);
    let permit = target.permit(&View::new(&catalog, &caller.selection).with(own.as_ref()));
    let found = permit.map(|_| r#"{"completion":{"values":[]}}"#);
    found.ok_or_else(|| target.unknown())
}
