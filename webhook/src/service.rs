//! The admission endpoints as an axum Router: bounded bodies, bounded concurrency, one span and one metric sample for
//! each request, and an answer with the request's uid whatever happens.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use mcp_gateway_api::{
    admission::{Verdict, advice},
    webhooks,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};
use tracing::Instrument;

use crate::{
    cache::WorldReader,
    cluster::Cluster,
    decision::{Decider, Outcome},
    metrics::{Metrics, Sample},
    review::{self, Request, Unusable},
};

/// Largest body: two objects (new and old) at the API server's own limit of 3 MiB each, and what wraps them.
pub const MAX_BODY: usize = 8 * 1024 * 1024;
/// Requests judged at the same time; more are refused at once, so that those under way still end in time.
pub const MAX_CONCURRENT: usize = 256;
/// What the API server waits when it does not say.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest patience that is believed: what a webhook configuration can ask for.
const MAX_PATIENCE: Duration = Duration::from_secs(30);

struct Shared<C> {
    decider: Decider<C>,
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

/// `?timeout=5s`, which the API server appends.
#[derive(Debug, Default, Deserialize)]
struct Patience {
    timeout: Option<String>,
}

impl Patience {
    fn duration(&self) -> Duration {
        let text = self.timeout.as_deref().unwrap_or_default();
        let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(millis), _) => millis.parse().ok().map(Duration::from_millis),
            (None, Some(seconds)) => seconds.parse().ok().map(Duration::from_secs),
            _ => None,
        };
        parsed.unwrap_or(DEFAULT_PATIENCE).min(MAX_PATIENCE)
    }
}

/// The endpoints over `decider`.
pub fn router<C: Cluster>(decider: Decider<C>, metrics: Metrics) -> Router {
    router_with_limit(decider, metrics, MAX_CONCURRENT)
}

/// [`router`] with another limit of concurrency.
pub fn router_with_limit<C: Cluster>(decider: Decider<C>, metrics: Metrics, concurrent: usize) -> Router {
    let shared = Shared {
        decider,
        metrics,
        permits: Arc::new(Semaphore::new(concurrent)),
    };
    Router::new()
        .route(webhooks::VALIDATE_PATH, post(validate::<C>))
        .route(webhooks::MUTATE_PATH, post(mutate::<C>))
        .with_state(Arc::new(shared))
}

/// The advisory endpoint, for `--advisory`: warnings on deletions, whatever else is wrong with the request.
pub fn advisory(world: WorldReader) -> Router {
    let advise = move |body: Body| {
        let world = world.clone();
        async move {
            let Some(body) = read(body).await else {
                return StatusCode::PAYLOAD_TOO_LARGE.into_response();
            };
            Json(review::advice(&body, |object| {
                world.read(|world| advice::on_delete(world, object))
            }))
            .into_response()
        }
    };
    Router::new().route(webhooks::ADVISE_PATH, post(advise))
}

async fn validate<C: Cluster>(
    State(shared): State<Arc<Shared<C>>>,
    patience: Result<Query<Patience>, QueryRejection>,
    body: Body,
) -> Response {
    let patience = patience.map_or(DEFAULT_PATIENCE, |Query(patience)| patience.duration());
    let handler = Arc::clone(&shared);
    // The judgement runs on its own task: when the API server gives up and closes the connection, claims that were
    // taken are still given back.
    shared
        .guarded(body, move |request| async move {
            handler.judged(&request, patience).await
        })
        .await
}

async fn mutate<C: Cluster>(State(shared): State<Arc<Shared<C>>>, body: Body) -> Response {
    let handler = Arc::clone(&shared);
    shared
        .guarded(body, move |request| async move { handler.patched(&request) })
        .await
}

impl<C: Cluster> Shared<C> {
    /// Reads the body within its limits, runs `handle` on a task of its own, and records the outcome.
    async fn guarded<F, R>(&self, body: Body, handle: F) -> Response
    where
        F: FnOnce(Request) -> R,
        R: Future<Output = (Value, Sample)> + Send + 'static,
    {
        let start = Instant::now();
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.record(Sample::unread("shed"), start.elapsed());
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "1")],
                "too many requests",
            )
                .into_response();
        };
        let Some(body) = read(body).await else {
            self.metrics.record(Sample::unread("malformed"), start.elapsed());
            return (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or incomplete",
            )
                .into_response();
        };
        let (answer, sample) = answer::<C, _, _>(&body, handle).await;
        drop(permit);
        self.metrics.record(sample, start.elapsed());
        Json(answer).into_response()
    }

    async fn judged(&self, request: &Request, patience: Duration) -> (Value, Sample) {
        let sample = |verdict, rule| Sample {
            kind: Some(request.kind),
            operation: request.operation.as_str(),
            verdict,
            rule,
        };
        match self.decider.validate(request, patience).await {
            Outcome::Exempt => (review::allowed(&request.uid), sample("exempt", "none")),
            Outcome::Judged(verdict) => {
                let (outcome, rule) = summary(&verdict);
                (review::answer(&request.uid, &verdict), sample(outcome, rule))
            }
        }
    }

    fn patched(&self, request: &Request) -> (Value, Sample) {
        let patch = self.decider.defaults(request);
        let verdict = if patch.0.is_empty() { "allowed" } else { "patched" };
        let sample = Sample {
            kind: Some(request.kind),
            operation: "MUTATE",
            verdict,
            rule: "defaults",
        };
        (review::patched(&request.uid, &patch), sample)
    }
}

/// Reads the request and has it handled on a task of its own, within its span.
async fn answer<C, F, R>(body: &[u8], handle: F) -> (Value, Sample)
where
    C: Cluster,
    F: FnOnce(Request) -> R,
    R: Future<Output = (Value, Sample)> + Send + 'static,
{
    let request = match Request::read(body) {
        Ok(request) => request,
        Err(Unusable::NotOurs { uid }) => return (review::allowed(&uid), Sample::unread("foreign")),
        Err(Unusable::Malformed { uid, what }) => {
            tracing::info!(uid, what, "Review cannot be read");
            return (review::undecodable(&uid, &what), Sample::unread("malformed"));
        }
    };
    let uid = request.uid.clone();
    let (kind, key) = Decider::<C>::subject_of(&request);
    let operation = request.operation.as_str();
    let span = tracing::info_span!(
        "admission",
        kind = kind.as_str(),
        ns = key.namespace,
        name = key.name,
        operation,
        dry_run = request.dry_run,
        uid,
        verdict = tracing::field::Empty,
        rule = tracing::field::Empty,
    );
    let task = tokio::spawn(handle(request).instrument(span.clone()));
    let (answer, sample) = task.await.unwrap_or_else(|error| {
        tracing::error!(parent: &span, %error, "Judgement failed");
        (
            review::failed(&uid),
            Sample {
                kind: Some(kind),
                operation,
                verdict: "failed",
                rule: "none",
            },
        )
    });
    span.record("verdict", sample.verdict).record("rule", sample.rule);
    span.in_scope(|| log(&answer));
    (answer, sample)
}

fn summary(verdict: &Verdict) -> (&'static str, &'static str) {
    match (verdict.violations.first(), verdict.warnings.first()) {
        (Some(violation), _) => ("denied", violation.rule),
        (None, Some(warning)) => ("warned", warning.rule),
        (None, None) => ("allowed", "none"),
    }
}

fn log(answer: &Value) {
    match answer.pointer("/response/status/message").and_then(Value::as_str) {
        Some(why) => tracing::info!(why, "Refused"),
        None => tracing::debug!("Let through"),
    }
}

async fn read(body: Body) -> Option<Bytes> {
    match tokio::time::timeout(DEFAULT_PATIENCE, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Some(bytes),
        Ok(Err(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_the_deadline_is_that_of_the_query() {
        let patience = |text: &str| {
            Patience {
                timeout: Some(text.to_owned()),
            }
            .duration()
        };
        assert_eq!(patience("2s"), Duration::from_secs(2));
        assert_eq!(patience("250ms"), Duration::from_millis(250));
        assert_eq!(patience("9000s"), MAX_PATIENCE);
        assert_eq!(patience("soon"), DEFAULT_PATIENCE);
    }
}
