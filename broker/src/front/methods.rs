//! Requests that the gateway answers itself (data-plane.md 4.3, 4.5), legacy era. What belongs to a server never gets
//! an answer here: it came by the wrong way.

use super::FrontState;
use super::mcp::{Caller, json, refuse};
use crate::aggregation::lists::{Paging, page};
use crate::aggregation::view::View;
use crate::auth::session::{NewSession, capability_letters, mint};
use crate::auth::{clock, identity};
use crate::decision::Head;
use crate::protocol::json::quoted;
use crate::protocol::message::Message;
use crate::protocol::reply::{INTERNAL, INVALID_PARAMS, METHOD_NOT_FOUND, Refusal, result};
use crate::protocol::{header, version};
use crate::upstreams::items::ItemKind;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;

const CAPABILITIES: &str = r#"{"completions":{},"logging":{},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true}}"#;
const SERVER_NAME: &str = "Kuadrant MCP Gateway";
const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

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
        binding: identity::binding(&state.keys, head.get("authorization")),
        length: state.session_length,
    };
    let (token, claims) = mint(&state.keys, new, clock::now());
    state.metrics.sessions_created.inc();
    tracing::debug!(component = "broker", session = %format_args!("jti:{}", claims.jti), version, "Session made");
    let body = format!(
        r#"{{"protocolVersion":{},"capabilities":{CAPABILITIES},"serverInfo":{{"name":{},"version":{}}}}}"#,
        quoted(version),
        quoted(SERVER_NAME),
        quoted(crate::VERSION)
    );
    let mut response = json(StatusCode::OK, result(message.id.unwrap_or("null"), &body));
    if let Ok(token) = HeaderValue::from_str(&token) {
        response.headers_mut().insert(header::SESSION, token);
    }
    response
}

/// Every other request.
pub fn request(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Response {
    let kind = ItemKind::ALL
        .into_iter()
        .find(|kind| kind.list_method() == message.method);
    match (message.method.as_ref(), kind) {
        (_, Some(kind)) => list(state, caller, kind, message),
        ("ping", _) => ok(message, "{}"),
        ("logging/setLevel", _) => set_level(message),
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

fn ok(message: &Message<'_>, body: &str) -> Response {
    json(StatusCode::OK, result(message.id.unwrap_or("null"), body))
}

fn invalid_params(what: &str) -> Refusal {
    Refusal::new(200, INVALID_PARAMS, format!("invalid {what}"), "params")
}

fn list(state: &FrontState, caller: &Caller, kind: ItemKind, message: &Message<'_>) -> Response {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ListParams {
        cursor: Option<String>,
    }
    let Ok(params) = serde_json::from_str::<ListParams>(message.params.unwrap_or("{}")) else {
        return refuse(&invalid_params("cursor"), message.id);
    };
    let catalog = state.published.load();
    let view = View::new(&catalog, &caller.selection);
    let paging = Paging {
        keys: &state.keys,
        size: state.page_size,
        now: clock::now(),
    };
    match page(&view, &caller.selection, kind, params.cursor.as_deref(), &paging) {
        Ok(body) => ok(message, &body),
        Err(_) => refuse(&invalid_params("cursor"), message.id),
    }
}

fn set_level(message: &Message<'_>) -> Response {
    #[derive(Deserialize)]
    struct LevelParams {
        level: String,
    }
    let params = serde_json::from_str::<LevelParams>(message.params.unwrap_or("{}"));
    match params {
        Ok(params) if LEVELS.contains(&params.level.as_str()) => ok(message, "{}"),
        _ => refuse(&invalid_params("level"), message.id),
    }
}

/// Completions are not relayed by this build: a known reference has no values, an unknown one is refused.
fn complete(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Response {
    #[derive(Deserialize)]
    struct Reference {
        r#type: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        uri: String,
    }
    let Some(reference) = message
        .reference
        .and_then(|text| serde_json::from_str::<Reference>(text).ok())
    else {
        return refuse(&invalid_params("ref"), message.id);
    };
    let catalog = state.published.load();
    let view = View::new(&catalog, &caller.selection);
    let known = match reference.r#type.as_str() {
        "ref/prompt" => view.permit(ItemKind::Prompt, &reference.name).is_some(),
        "ref/resource" => [ItemKind::Template, ItemKind::Resource]
            .into_iter()
            .any(|kind| view.permit(kind, &reference.uri).is_some()),
        _ => false,
    };
    if known {
        ok(message, r#"{"completion":{"values":[]}}"#)
    } else {
        refuse(&invalid_params("ref"), message.id)
    }
}
