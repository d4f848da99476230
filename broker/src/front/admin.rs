//! The admin listener: metrics, health, readiness, status.

use super::status::{all_admin, hidden, is_from_outside, one_admin};
use super::{FrontState, mcp};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use std::fmt::Write as _;
use std::sync::Arc;

/// The admin routes.
pub fn admin(state: Arc<FrontState>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/status", any(all_admin))
        .route("/status/{*name}", any(one_admin))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(state)
}

async fn metrics(State(state): State<Arc<FrontState>>) -> Response {
    state.metrics.key_problems(&state.authenticator.problems());
    let mut response = state.metrics.text().into_response();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(content_type));
    response
}

/// `/healthz` on the broker.
pub async fn healthz_public(request: Request<Body>) -> Response {
    if is_from_outside(&request) {
        hidden()
    } else {
        mcp::plain(StatusCode::OK, "ok\n")
    }
}

/// `/readyz` on the broker.
pub async fn readyz_public(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    if is_from_outside(&request) {
        hidden()
    } else {
        readyz(State(state)).await
    }
}

/// One line per check; 503 when one fails.
async fn readyz(State(state): State<Arc<FrontState>>) -> Response {
    let own = [
        ("listeners", state.health.is_bound()),
        ("serving", !state.health.is_draining()),
    ];
    let (mut text, mut ready) = (String::new(), true);
    for (name, good) in state.published.checks().into_iter().chain(own) {
        let _ = writeln!(text, "{name}: {}", if good { "ok" } else { "not ready" });
        ready &= good;
    }
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
        .into_response()
}
