//! Probes and metrics, on ports of their own and without TLS (operator.md 11.1).

use std::sync::Arc;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

use mcp_gateway_api::conditions::ConditionType;
use serde_json::Value;

use crate::{
    cache::Cache,
    kinds::Kind,
    metrics::Metrics,
    reconcile::status::{condition, conditions_of},
};

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
pub(crate) fn metrics(metrics: Arc<Metrics>, cache: Arc<Cache>) -> Router {
    let text = move || {
        count(&cache, &metrics);
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

/// Counts the objects of our kinds by their verdict.
fn count(cache: &Cache, metrics: &Metrics) {
    let kinds = [
        (Kind::Extension, ConditionType::Ready),
        (Kind::Registration, ConditionType::Ready),
        (Kind::VirtualServer, ConditionType::Ready),
        (Kind::AuthPolicy, ConditionType::Accepted),
    ];
    for (kind, verdict) in kinds {
        let objects = cache.list(kind, |_| true);
        let says = |status: &str| {
            let says = |object: &Value| {
                condition(&conditions_of(object), verdict).is_some_and(|found| found.status == status)
            };
            objects.iter().filter(|(_, object)| says(object)).count()
        };
        let (ready, unready) = (says("True"), says("False"));
        metrics.counted(kind, "true", ready);
        metrics.counted(kind, "false", unready);
        metrics.counted(kind, "unknown", objects.len() - ready - unready);
    }
}
