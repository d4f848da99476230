//! One decision: one span, whose fields are filled as they become known, and one sample of the metrics.

use tokio::time::Instant;
use tracing::{Span, field::Empty};

use crate::{
    metrics::{Metrics, Sample},
    review::Request,
};

/// A decision that is being made.
pub(crate) struct Record {
    metrics: Metrics,
    start: Instant,
    span: Span,
}

impl Record {
    /// Begins with the arrival of a request.
    pub(crate) fn begin(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            start: Instant::now(),
            span: tracing::info_span!(
                "admission",
                kind = Empty,
                ns = Empty,
                name = Empty,
                operation = Empty,
                dry_run = Empty,
                uid = Empty,
                verdict = Empty,
                rule = Empty,
                latency_us = Empty,
            ),
        }
    }

    /// The span, for what happens on the way.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Ends with the answer.
    pub(crate) fn end(self, sample: Sample) {
        let latency = self.start.elapsed();
        self.span
            .record("kind", sample.kind)
            .record("operation", sample.operation)
            .record("verdict", sample.verdict)
            .record("rule", sample.rule)
            .record(
                "latency_us",
                u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            );
        self.metrics.record(sample, latency);
    }
}

/// Fills in what the request is about, once that is known.
pub(crate) fn about(span: &Span, request: &Request) {
    let key = request.key();
    span.record("ns", key.namespace)
        .record("name", key.name)
        .record("dry_run", request.dry_run)
        .record("uid", request.uid.as_str());
}
