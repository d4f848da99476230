//! Metrics of decisions (operator.md 11.3): bounded labels, never a name that a user chose.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::intake::Watched;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Labels of one decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    kind: &'static str,
    operation: &'static str,
    verdict: &'static str,
    rule: &'static str,
}

/// One decision, for span and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Kind of the object; `none` when the body could not be read.
    pub kind: &'static str,
    /// `CREATE`, `UPDATE`, `DELETE`, `MUTATE` or `none`.
    pub operation: &'static str,
    /// `allowed`, `warned`, `denied`, `exempt`, `patched`, `malformed`, `foreign`, `shed`, `failed`.
    pub verdict: &'static str,
    /// The first rule that spoke, or `none`.
    pub rule: &'static str,
}

impl Sample {
    /// A request that was not read as one of ours.
    #[must_use]
    pub fn unread(verdict: &'static str) -> Self {
        Self {
            kind: "none",
            operation: "none",
            verdict,
            rule: "none",
        }
    }
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    decisions: Family<Labels, Counter>,
    latency: Histogram,
    watch_restarts: Family<WatchLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mcp_gateway");
        let decisions = Family::<Labels, Counter>::default();
        registry.register(
            "admission",
            "Decisions by kind, operation, verdict and rule",
            decisions.clone(),
        );
        // From 50 µs (a rule) to 6.5 s (beyond every deadline).
        let latency = Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        registry.register(
            "admission_seconds",
            "Time from request to answer",
            latency.clone(),
        );
        let watch_restarts = Family::<WatchLabels, Counter>::default();
        registry.register(
            "watch_restarts",
            "Watches that failed and were started again",
            watch_restarts.clone(),
        );
        Self {
            registry: Arc::new(registry),
            decisions,
            latency,
            watch_restarts,
        }
    }
}

impl Metrics {
    /// Counts one decision.
    pub fn record(&self, sample: Sample, latency: Duration) {
        let labels = Labels {
            kind: sample.kind,
            operation: sample.operation,
            verdict: sample.verdict,
            rule: sample.rule,
        };
        self.decisions.get_or_create(&labels).inc();
        self.latency.observe(latency.as_secs_f64());
    }

    /// Counts a watch that failed and starts again.
    pub fn watch_restarted(&self, kind: Watched) {
        self.watch_restarts
            .get_or_create(&WatchLabels { kind: kind.name() })
            .inc();
    }

    /// The exposition text (OpenMetrics).
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
