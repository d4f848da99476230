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
struct KindReady {
    kind: &'static str,
    ready: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateOnly {
    state: &'static str,
}

/// All metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<KindResult, Counter>,
    seconds: Family<KindOnly, Histogram>,
    applies: Family<KindResult, Counter>,
    watch_restarts: Family<KindOnly, Counter>,
    objects: Family<KindReady, Gauge>,
    claims: Family<StateOnly, Gauge>,
    config_bytes: Gauge,
    config_propagation: Histogram,
    leader: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            applies: Family::default(),
            watch_restarts: Family::default(),
            objects: Family::default(),
            claims: Family::default(),
            config_bytes: Gauge::default(),
            config_propagation: histogram(),
            leader: Gauge::default(),
        };
        let registry = metrics.registered();
        Self { registry, ..metrics }
    }

    /// A registry with every metric under its name.
    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("mcp_gateway");
        let reconciles = Family::clone(&self.reconciles);
        registry.register("reconcile", "Evaluations by kind and result", reconciles);
        let seconds = Family::clone(&self.seconds);
        registry.register("reconcile_seconds", "Duration of evaluations", seconds);
        let applies = Family::clone(&self.applies);
        registry.register("apply", "Child objects by what applying them did", applies);
        let restarts = Family::clone(&self.watch_restarts);
        registry.register("watch_restarts", "Watches that had to start again", restarts);
        let objects = Family::clone(&self.objects);
        registry.register("objects", "Objects of our kinds by their verdict", objects);
        let claims = Family::clone(&self.claims);
        registry.register("claims", "Exclusivity claims by state", claims);
        registry.register(
            "config_bytes",
            "Size of the largest config document written",
            self.config_bytes.clone(),
        );
        registry.register(
            "config_propagation_seconds",
            "From writing a config document until every ready broker reports it",
            self.config_propagation.clone(),
        );
        registry.register("leader", "1 while this replica leads", self.leader.clone());
        registry
    }

    pub(crate) fn reconciled(&self, kind: &'static str, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&KindResult { kind, result }).inc();
        self.seconds
            .get_or_create(&KindOnly { kind })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn applied(&self, kind: Kind, result: &'static str) {
        let kind = kind.name();
        self.applies.get_or_create(&KindResult { kind, result }).inc();
    }

    /// How many objects of `kind` there are, by the status of their verdict.
    pub(crate) fn counted(&self, kind: Kind, ready: &'static str, objects: usize) {
        let kind = kind.name();
        let gauge = self.objects.get_or_create(&KindReady { kind, ready });
        gauge.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// How many claims there are in a state.
    pub(crate) fn claimed(&self, state: &'static str, claims: usize) {
        let gauge = self.claims.get_or_create(&StateOnly { state });
        gauge.set(i64::try_from(claims).unwrap_or(i64::MAX));
    }

    /// A document reached every ready broker.
    pub(crate) fn propagated(&self, took: Duration) {
        self.config_propagation.observe(took.as_secs_f64());
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
