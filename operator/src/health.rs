//! Probes and metrics, on ports of their own and without TLS (operator.md 11.1).

use std::sync::Arc;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

use crate::{cache::Cache, metrics::Metrics};

/// `/healthz`, and `/readyz` that is 200 once the caches are synced, on a leader or not.
pub(crate) fn probes(cache: Arc<Cache>) -> Router {
    let ready = move || {
        let synced = cache.is_synced();
        async move {
            if synced {
                "ok".into_response()
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "caches are not synced yet").into_response()
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
}

/// `/metrics`.
pub(crate) fn metrics(metrics: Arc<Metrics>) -> Router {
    let text = move || {
        let text = metrics.text();
        async move {
            (
                [(
                    "content-type",
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                )],
                text,
            )
        }
    };
    Router::new().route("/metrics", get(text))
}
