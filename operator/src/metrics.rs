//! Metrics of the operator process (operator.md 11.3). Labels are bounded: never the name of a user's object.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::kinds::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindResult {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOnly {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultOnly {
    result: &'static str,
}

/// All metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<KindResult, Counter>,
    seconds: Family<KindOnly, Histogram>,
    applies: Family<ResultOnly, Counter>,
    watch_restarts: Family<KindOnly, Counter>,
    config_bytes: Gauge,
    leader: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("mcp_gateway");
        let reconciles = Family::default();
        let seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        let applies = Family::default();
        let watch_restarts = Family::default();
        let (config_bytes, leader) = (Gauge::default(), Gauge::default());
        registry.register(
            "reconcile",
            "Evaluations by kind and result",
            Family::clone(&reconciles),
        );
        registry.register(
            "reconcile_seconds",
            "Duration of evaluations",
            Family::clone(&seconds),
        );
        registry.register(
            "apply",
            "Child objects by what applying them did",
            Family::clone(&applies),
        );
        registry.register(
            "watch_restarts",
            "Watches that had to start again",
            Family::clone(&watch_restarts),
        );
        registry.register(
            "config_bytes",
            "Size of the largest config document written",
            config_bytes.clone(),
        );
        registry.register("leader", "1 while this replica leads", leader.clone());
        Self {
            registry,
            reconciles,
            seconds,
            applies,
            watch_restarts,
            config_bytes,
            leader,
        }
    }

    pub(crate) fn reconciled(&self, kind: &'static str, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&KindResult { kind, result }).inc();
        self.seconds
            .get_or_create(&KindOnly { kind })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn applied(&self, result: &'static str) {
        self.applies.get_or_create(&ResultOnly { result }).inc();
    }

    pub(crate) fn watch_restarted(&self, kind: Kind) {
        self.watch_restarts
            .get_or_create(&KindOnly { kind: kind.name() })
            .inc();
    }

    pub(crate) fn config_written(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.config_bytes.set(self.config_bytes.get().max(bytes));
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The text exposition.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::warn!(%error, "Metrics cannot be written");
        }
        text
    }
}
