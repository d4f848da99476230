//! Probes and metrics, on ports of their own and without TLS.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{cache::WorldReader, metrics::Metrics, tls::Pair};

/// What readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    world: WorldReader,
    pair: Pair,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// Ready once `world` is synced and `pair` is there.
    #[must_use]
    pub fn new(world: WorldReader, pair: Pair) -> Self {
        Self {
            world,
            pair,
            draining: Arc::default(),
        }
    }

    /// Not ready any more: the process is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What is missing; `None` when ready.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("stopping")
        } else if !self.pair.is_served() {
            Some("no valid serving certificate yet")
        } else if !self.world.is_synced() {
            Some("caches are not synced yet")
        } else {
            None
        }
    }
}

/// The same service, which gives up each connection with its next answer while the replica leaves. The API server speaks
/// HTTP/1.1 and keeps connections; one that is closed between two requests takes the second with it.
pub fn giving_up(router: Router, readiness: Readiness) -> Router {
    router.layer(from_fn_with_state(readiness, given_up))
}

async fn given_up(State(readiness): State<Readiness>, request: Request, next: Next) -> Response {
    let kept = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if kept && readiness.is_draining() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// `/healthz` and `/readyz`.
pub fn probes(readiness: Readiness) -> Router {
    let ready = move || {
        let missing = readiness.missing();
        async move {
            match missing {
                Some(what) => (StatusCode::SERVICE_UNAVAILABLE, what).into_response(),
                None => "ok".into_response(),
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
}

/// `/metrics`.
pub fn metrics(metrics: Metrics) -> Router {
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
