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
    intake::Watched,
    webhooks,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::{Instrument, Span};

use crate::{
    cache::WorldReader,
    cluster::Cluster,
    decision::{Decider, Outcome},
    metrics::{Metrics, Sample},
    record::{self, Record},
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

/// What every endpoint has in front: bounded concurrency, bounded bodies, and a record of what came of the request.
#[derive(Clone)]
struct Gate {
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

struct Shared<C> {
    decider: Decider<C>,
    gate: Gate,
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
    let gate = Gate::new(metrics, concurrent);
    let shared = Shared { decider, gate };
    Router::new()
        .route(webhooks::VALIDATE_PATH, post(validate::<C>))
        .route(webhooks::MUTATE_PATH, post(mutate::<C>))
        .with_state(Arc::new(shared))
}

/// The advisory endpoint, for `--advisory`: warnings on deletions, whatever else is wrong with the request.
pub fn advisory(world: WorldReader, metrics: Metrics) -> Router {
    let gate = Gate::new(metrics, MAX_CONCURRENT);
    let advise = move |body: Body| {
        let (gate, world) = (gate.clone(), world.clone());
        let advised = |body: Bytes, _| async move { advised(&world, &body) };
        async move { gate.pass(body, advised).await }
    };
    Router::new().route(webhooks::ADVISE_PATH, post(advise))
}

fn advised(world: &WorldReader, body: &[u8]) -> (Value, Sample) {
    let mut sample = Sample::unread("malformed");
    let answer = review::advice(body, |object| {
        let warnings = world.read(|world| advice::on_delete(world, object));
        let kind = object
            .get("kind")
            .and_then(Value::as_str)
            .and_then(Watched::from_name);
        let first = warnings.first();
        sample = Sample {
            kind: kind.map_or("none", Watched::name),
            operation: "DELETE",
            verdict: first.map_or("allowed", |_| "warned"),
            rule: first.map_or("none", |warning| warning.rule),
        };
        warnings
    });
    (answer, sample)
}

async fn validate<C: Cluster>(
    State(shared): State<Arc<Shared<C>>>,
    patience: Result<Query<Patience>, QueryRejection>,
    body: Body,
) -> Response {
    let patience = patience.map_or(DEFAULT_PATIENCE, |Query(patience)| patience.duration());
    let handler = Arc::clone(&shared);
    let judge = move |request: Request| async move { handler.judged(&request, patience).await };
    shared
        .gate
        .pass(body, |body, span| answer(body, span, judge))
        .await
}

async fn mutate<C: Cluster>(State(shared): State<Arc<Shared<C>>>, body: Body) -> Response {
    let handler = Arc::clone(&shared);
    let patch = move |request: Request| async move { handler.patched(&request) };
    shared
        .gate
        .pass(body, |body, span| answer(body, span, patch))
        .await
}

impl Gate {
    fn new(metrics: Metrics, concurrent: usize) -> Self {
        Self {
            metrics,
            permits: Arc::new(Semaphore::new(concurrent)),
        }
    }

    /// Reads the body within its limits, has it handled, and records the outcome.
    async fn pass<F, R>(&self, body: Body, handle: F) -> Response
    where
        F: FnOnce(Bytes, Span) -> R,
        R: Future<Output = (Value, Sample)>,
    {
        let record = Record::begin(&self.metrics);
        let Ok(_permit) = self.permits.try_acquire() else {
            record.end(Sample::unread("shed"));
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "1")],
                "too many requests",
            )
                .into_response();
        };
        let Some(body) = read(body).await else {
            record.end(Sample::unread("malformed"));
            return (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or incomplete",
            )
                .into_response();
        };
        let (answer, sample) = handle(body, record.span().clone()).await;
        record.end(sample);
        Json(answer).into_response()
    }
}

impl<C: Cluster> Shared<C> {
    async fn judged(&self, request: &Request, patience: Duration) -> (Value, Sample) {
        let sample = |verdict, rule| Sample {
            kind: request.kind.as_str(),
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
            kind: request.kind.as_str(),
            operation: "MUTATE",
            verdict,
            rule: "defaults",
        };
        (review::patched(&request.uid, &patch), sample)
    }
}

/// Reads the request and has it handled on a task of its own, within its span: when the API server gives up and closes
/// the connection, claims that were taken are still given back.
async fn answer<F, R>(body: Bytes, span: Span, handle: F) -> (Value, Sample)
where
    F: FnOnce(Request) -> R,
    R: Future<Output = (Value, Sample)> + Send + 'static,
{
    let request = match Request::read(&body) {
        Ok(request) => request,
        Err(Unusable::NotOurs { uid }) => return (review::allowed(&uid), Sample::unread("foreign")),
        Err(Unusable::Malformed { uid, what }) => {
            tracing::info!(parent: &span, uid, what, "Review cannot be read");
            return (review::undecodable(&uid, &what), Sample::unread("malformed"));
        }
    };
    record::about(&span, &request);
    let (uid, kind) = (request.uid.clone(), request.kind);
    let operation = request.operation.as_str();
    let task = tokio::spawn(handle(request).instrument(span.clone()));
    let (answer, sample) = task.await.unwrap_or_else(|error| {
        tracing::error!(parent: &span, %error, "Judgement failed");
        (
            review::failed(&uid),
            Sample {
                kind: kind.as_str(),
                operation,
                verdict: "failed",
                rule: "none",
            },
        )
    });
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
