//! Prometheus metrics (data-plane.md 18.2). Labels are bounded: known methods and configured servers only.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Mutex;
use std::time::Duration;

const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0,
];
const METHODS: [&str; 16] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "notifications/initialized",
    "GET",
    "DELETE",
];

macro_rules! labels {
    ($name:ident { $($field:ident),+ }) => {
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name { $($field: String),+ }
    };
}

labels!(RequestLabels {
    method,
    era,
    route,
    outcome
});
labels!(RouteLabel { route });
labels!(ImmediateLabels { reason, code });
labels!(InitLabels { server, outcome });
labels!(ServerLabel { server });
labels!(ServerNameLabel { server_name });
labels!(ItemLabels { server_name, kind });
labels!(BuildLabels { version });
labels!(HashLabel { hash });

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn histograms<L: Clone + std::hash::Hash + Eq>() -> Histograms<L> {
    Family::new_with_constructor(seconds as fn() -> Histogram)
}

/// All metrics of the process.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    decisions: Histograms<RouteLabel>,
    immediate: Family<ImmediateLabels, Counter>,
    /// Open ext_proc streams.
    pub streams_active: Gauge,
    /// Client sessions made.
    pub sessions_created: Counter,
    /// Client sessions ended by DELETE.
    pub sessions_ended: Counter,
    /// Open GET streams of clients.
    pub client_streams: Gauge,
    inits: Family<InitLabels, Counter>,
    init_seconds: Histograms<ServerLabel>,
    server_up: Family<ServerNameLabel, Gauge>,
    server_failures: Family<ServerNameLabel, Gauge>,
    published: Family<ItemLabels, Gauge>,
    conflicting: Family<ServerNameLabel, Gauge>,
    config: Family<HashLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            decisions: histograms(),
            immediate: Family::default(),
            streams_active: Gauge::default(),
            sessions_created: Counter::default(),
            sessions_ended: Counter::default(),
            client_streams: Gauge::default(),
            inits: Family::default(),
            init_seconds: histograms(),
            server_up: Family::default(),
            server_failures: Family::default(),
            published: Family::default(),
            conflicting: Family::default(),
            config: Family::default(),
        };
        metrics.registry = Mutex::new(metrics.registered());
        metrics
    }
}

impl Metrics {
    fn registered(&self) -> Registry {
        let mut registry = Registry::default();
        self.register_router(&mut registry);
        self.register_broker(&mut registry);
        registry
    }

    fn register_router(&self, to: &mut Registry) {
        to.register(
            "mcp_router_requests",
            "Requests by decision",
            self.requests.clone(),
        );
        to.register(
            "mcp_router_decision_duration_seconds",
            "Time to the decision",
            self.decisions.clone(),
        );
        to.register(
            "mcp_router_immediate_responses",
            "Answers of the router itself",
            self.immediate.clone(),
        );
        to.register(
            "mcp_router_streams_active",
            "Open ext_proc streams",
            self.streams_active.clone(),
        );
        to.register(
            "mcp_session_backend_inits",
            "Backend sessions opened",
            self.inits.clone(),
        );
        to.register(
            "mcp_session_backend_init_duration_seconds",
            "Time to open one",
            self.init_seconds.clone(),
        );
    }

    fn register_broker(&self, to: &mut Registry) {
        let build: Family<BuildLabels, Gauge> = Family::default();
        build
            .get_or_create(&BuildLabels {
                version: crate::VERSION.to_owned(),
            })
            .set(1);
        to.register("mcp_gateway_build_info", "Build", build);
        to.register("mcp_gateway_config_info", "Config in use", self.config.clone());
        to.register(
            "mcp_session_created",
            "Client sessions made",
            self.sessions_created.clone(),
        );
        to.register(
            "mcp_session_ended",
            "Client sessions ended",
            self.sessions_ended.clone(),
        );
        to.register(
            "mcp_broker_client_streams_active",
            "Open GET streams",
            self.client_streams.clone(),
        );
        to.register(
            "mcp_broker_server_up",
            "1 when the last check succeeded",
            self.server_up.clone(),
        );
        to.register(
            "mcp_broker_server_consecutive_failures",
            "Failures in a row",
            self.server_failures.clone(),
        );
        to.register(
            "mcp_broker_items_published",
            "Items published",
            self.published.clone(),
        );
        to.register(
            "mcp_broker_items_conflicting",
            "Items that another server owns",
            self.conflicting.clone(),
        );
    }

    /// Counts a decided request.
    pub fn request(&self, method: &str, route: &str, outcome: &str) {
        let method = if METHODS.contains(&method) {
            method
        } else {
            "other"
        };
        let labels = RequestLabels {
            method: method.to_owned(),
            era: "legacy".to_owned(),
            route: route.to_owned(),
            outcome: outcome.to_owned(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Observes the time of a decision.
    pub fn decided(&self, route: &str, elapsed: Duration) {
        self.decisions
            .get_or_create(&RouteLabel {
                route: route.to_owned(),
            })
            .observe(elapsed.as_secs_f64());
    }

    /// Counts an answer of the router itself.
    pub fn immediate(&self, reason: &str, status: u16) {
        self.immediate
            .get_or_create(&ImmediateLabels {
                reason: reason.to_owned(),
                code: status.to_string(),
            })
            .inc();
    }

    /// Counts the opening of a backend session.
    pub fn backend_init(&self, server: &str, opened: bool, elapsed: Duration) {
        let outcome = if opened { "ok" } else { "unavailable" };
        self.inits
            .get_or_create(&InitLabels {
                server: server.to_owned(),
                outcome: outcome.to_owned(),
            })
            .inc();
        self.init_seconds
            .get_or_create(&ServerLabel {
                server: server.to_owned(),
            })
            .observe(elapsed.as_secs_f64());
    }

    /// Sets the gauges that follow the catalog.
    pub fn follow(&self, catalog: &crate::aggregation::catalog::Catalog) {
        use crate::upstreams::items::ItemKind;
        use crate::upstreams::snapshot::State;
        for family in [&self.server_up, &self.server_failures, &self.conflicting] {
            family.clear();
        }
        self.published.clear();
        for server in &catalog.servers {
            let name = || ServerNameLabel {
                server_name: server.config.name.clone(),
            };
            self.server_up
                .get_or_create(&name())
                .set(i64::from(server.snapshot.state == State::Ready));
            self.server_failures
                .get_or_create(&name())
                .set(i64::from(server.snapshot.failures));
            self.conflicting
                .get_or_create(&name())
                .set(i64::try_from(server.conflicts.len()).unwrap_or(i64::MAX));
            for kind in ItemKind::ALL {
                let count = server.published.get(kind as usize).copied().unwrap_or(0);
                let labels = ItemLabels {
                    server_name: server.config.name.clone(),
                    kind: kind.word().to_owned(),
                };
                self.published
                    .get_or_create(&labels)
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.config.clear();
        if let Some(snapshot) = &catalog.config.snapshot {
            self.config
                .get_or_create(&HashLabel {
                    hash: snapshot.hash.clone(),
                })
                .set(1);
        }
    }

    /// The exposition text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            let _ = encode(&mut text, &registry);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_one_series() {
        let metrics = Metrics::default();
        metrics.request("tools/call", "forward", "ok");
        metrics.request("evil\"}\n1", "broker", "ok");
        let text = metrics.text();
        assert!(text.contains(r#"mcp_router_requests_total{method="tools/call",era="legacy",route="forward",outcome="ok"} 1"#), "{text}");
        assert!(text.contains(r#"method="other""#) && !text.contains("evil"));
    }
}
