//! `/status` and `/status/{name}` (data-plane.md 2.5) on the broker and the admin port.

use super::FrontState;
use crate::aggregation::status;
use crate::auth::clock;
use crate::decision::head::THROUGH_GATEWAY;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use mcp_gateway_api::broker_status::ServerStatus;
use std::sync::Arc;

/// Said at the start and in the status.
pub const EXPOSED: &str = "other machines reach this address and nobody is verified: whoever reaches it can call every tool; \
    listen on 127.0.0.1, or add authn or authPolicies to the file";
const METHOD_ERROR: &str = r#"{"error":"Method not allowed. Supported methods: GET"}"#;

fn answer(method: &Method, found: impl FnOnce() -> (StatusCode, String)) -> Response {
    let (status, body) = match *method {
        Method::GET | Method::HEAD => found(),
        Method::OPTIONS => (StatusCode::NO_CONTENT, String::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, METHOD_ERROR.to_owned()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/json"));
    response
}

fn all_json(state: &FrontState) -> (StatusCode, String) {
    let mut status = status::status(
        &state.published.load(),
        &state.replica,
        state.store.scoped() as u64,
        clock::rfc3339(),
    );
    for server in &mut status.servers {
        warn_of_route(state, server);
    }
    status.key_problems = state.authenticator.problems();
    status.config.warnings.extend(state.tls.problem());
    status.config.warnings.extend(open_to_all(state));
    (StatusCode::OK, serde_json::to_string(&status).unwrap_or_default())
}

/// What is to be known of a front that anybody can reach and that verifies nobody.
fn open_to_all(state: &FrontState) -> Option<String> {
    let catalog = state.published.load();
    let verifies = catalog
        .config
        .snapshot
        .as_ref()
        .is_some_and(|snapshot| !snapshot.providers.is_empty());
    (state.exposed && !verifies).then(|| EXPOSED.to_owned())
}

/// A hairpin that found no route means that the registration's route does not lead to the server (D70).
fn warn_of_route(state: &FrontState, server: &mut ServerStatus) {
    if state
        .opener
        .as_ref()
        .is_some_and(|opener| opener.lacks_route(&server.name))
    {
        let catalog = state.published.load();
        let place = catalog
            .server(&server.name)
            .map(|server| format!("{}{}", server.config.hostname, server.config.url.path()));
        server.warnings.push(format!(
            "no route at the gateway for {}",
            place.unwrap_or_default()
        ));
    }
}

fn one_json(state: &FrontState, name: &str) -> (StatusCode, String) {
    match status::of_one(&state.published.load(), name) {
        Some(mut server) => {
            warn_of_route(state, &mut server);
            (StatusCode::OK, serde_json::to_string(&server).unwrap_or_default())
        }
        None => {
            let text = format!("Server '{name}' not found. Use format /status/<namespace>/<name>");
            (
                StatusCode::NOT_FOUND,
                serde_json::json!({"error": text}).to_string(),
            )
        }
    }
}

/// True when the router marked the request as coming through the gateway.
pub fn is_from_outside(request: &Request<Body>) -> bool {
    request.headers().contains_key(THROUGH_GATEWAY)
}

/// A bare 404.
pub fn hidden() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn with_cors(mut response: Response) -> Response {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, OPTIONS"),
        ("access-control-allow-headers", "Content-Type"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// `/status` on the broker.
pub async fn all_public(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    if is_from_outside(&request) {
        return hidden();
    }
    with_cors(answer(request.method(), || all_json(&state)))
}

/// `/status/{name}` on the broker.
pub async fn one_public(
    State(state): State<Arc<FrontState>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    if is_from_outside(&request) {
        return hidden();
    }
    with_cors(answer(request.method(), || one_json(&state, &name)))
}

/// `/status` on the admin port.
pub async fn all_admin(State(state): State<Arc<FrontState>>, method: Method) -> Response {
    answer(&method, || all_json(&state))
}

/// `/status/{name}` on the admin port.
pub async fn one_admin(
    State(state): State<Arc<FrontState>>,
    Path(name): Path<String>,
    method: Method,
) -> Response {
    answer(&method, || one_json(&state, &name))
}
