//! Prometheus metrics (data-plane.md 18.2). Labels are bounded: known methods and configured servers only.

use super::call_metrics::CallMetrics;
use super::refusals::RefusalLog;
use super::relay_metrics::RelayMetrics;
use super::server_metrics::{ServerGauges, ServerMetrics};
use super::session_metrics::SessionMetrics;
use crate::protocol::version::Era;
use mcp_gateway_api::broker_status::KeyProblem;
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
const BYTES: [f64; 9] = [
    256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
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
    ($name:ident { $($field:ident),+ $(,)? }) => {
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: String),+ }
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
labels!(ServerLabel { server });
labels!(StreamLabel { kind });
labels!(BuildLabels { version, revision });
labels!(HashLabel { hash });
labels!(ResultLabel { result });
labels!(OperationLabel { op });

pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

pub(super) fn histograms<L: Clone + std::hash::Hash + Eq>() -> Histograms<L> {
    Family::new_with_constructor(seconds as fn() -> Histogram)
}

/// The label of a method: strangers share one.
pub(super) fn known(method: &str) -> &str {
    if METHODS.contains(&method) {
        method
    } else {
        "other"
    }
}

/// Open streams of clients, by what opened them.
pub struct ClientStreams {
    family: Family<StreamLabel, Gauge>,
    /// GET of a session.
    pub get: Gauge,
    /// `subscriptions/listen` of a client without one.
    pub listen: Gauge,
}

impl Default for ClientStreams {
    fn default() -> Self {
        let family: Family<StreamLabel, Gauge> = Family::default();
        let of = |kind: &str| {
            let kind = kind.to_owned();
            family.get_or_create_owned(&StreamLabel { kind })
        };
        Self {
            get: of("get"),
            listen: of("listen"),
            family,
        }
    }
}

/// All metrics of the process.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    decisions: Histograms<RouteLabel>,
    immediate: Family<ImmediateLabels, Counter>,
    /// Open ext_proc streams.
    pub streams_active: Gauge,
    /// Open streams of clients: of those with a session, and of those that listen without one.
    pub client_streams: ClientStreams,
    /// Streams that were not opened because there are too many.
    pub stream_overflows: Counter,
    config: Family<HashLabel, Gauge>,
    /// The one that is shown.
    config_shown: Mutex<Option<HashLabel>>,
    /// Metrics by server.
    pub servers: ServerMetrics,
    /// Metrics by tool, and of decisions about callers.
    pub calls: CallMetrics,
    /// Metrics of sessions.
    pub sessions: SessionMetrics,
    /// Metrics of questions and notices of servers.
    pub relays: RelayMetrics,
    /// The log of what is counted as refused.
    pub refusals: RefusalLog,
    store_seconds: Histograms<OperationLabel>,
    store_errors: Family<OperationLabel, Counter>,
    reloads: Family<ResultLabel, Counter>,
    last_config: Gauge,
    key_problems: Gauge,
    children: Family<ServerLabel, Gauge>,
    keys_missing: Gauge,
    /// Bytes of `tools/list` answers.
    pub tools_list_bytes: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            decisions: histograms(),
            immediate: Family::default(),
            streams_active: Gauge::default(),
            client_streams: ClientStreams::default(),
            stream_overflows: Counter::default(),
            config: Family::default(),
            config_shown: Mutex::default(),
            servers: ServerMetrics::default(),
            calls: CallMetrics::default(),
            sessions: SessionMetrics::default(),
            relays: RelayMetrics::default(),
            refusals: RefusalLog::default(),
            store_seconds: histograms(),
            store_errors: Family::default(),
            reloads: Family::default(),
            last_config: Gauge::default(),
            key_problems: Gauge::default(),
            children: Family::default(),
            keys_missing: Gauge::default(),
            tools_list_bytes: Histogram::new(BYTES),
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
        self.servers.register(&mut registry);
        self.calls.register(&mut registry);
        self.sessions.register(&mut registry);
        self.relays.register(&mut registry);
        let help = "Running processes of servers that are commands";
        registry.register("mcp_front_children", help, self.children.clone());
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
    }

    fn register_broker(&self, to: &mut Registry) {
        let build: Family<BuildLabels, Gauge> = Family::default();
        build
            .get_or_create(&BuildLabels {
                version: crate::VERSION.to_owned(),
                revision: crate::REVISION.to_owned(),
            })
            .set(1);
        to.register("mcp_gateway_build_info", "Build", build);
        to.register("mcp_gateway_config_info", "Config in use", self.config.clone());
        to.register(
            "mcp_store_operation_duration_seconds",
            "Time of one operation of the shared session store",
            self.store_seconds.clone(),
        );
        to.register(
            "mcp_store_errors",
            "Failed operations of it",
            self.store_errors.clone(),
        );
        self.register_keys(to);
        to.register(
            "mcp_broker_client_streams_active",
            "Open streams of clients, with a session (get) or without one (listen)",
            self.client_streams.family.clone(),
        );
        to.register(
            "mcp_broker_stream_overflows",
            "Streams of servers not opened at the bound",
            self.stream_overflows.clone(),
        );
        to.register(
            "mcp_gateway_config_reloads",
            "Config updates",
            self.reloads.clone(),
        );
        let help = "When the config was last applied, Unix seconds";
        to.register(
            "mcp_gateway_config_last_success_timestamp_seconds",
            help,
            self.last_config.clone(),
        );
        to.register(
            "mcp_broker_tools_list_response_bytes",
            "Size of tools/list answers",
            self.tools_list_bytes.clone(),
        );
    }

    fn register_keys(&self, to: &mut Registry) {
        to.register(
            "mcp_auth_issuers_without_fresh_keys",
            "Issuers whose keys cannot be used or whose last fetch failed",
            self.key_problems.clone(),
        );
        to.register(
            "mcp_auth_issuers_without_keys",
            "Those of them that have no keys at all, so that their callers are answered with 503",
            self.keys_missing.clone(),
        );
    }

    /// Counts a decided request.
    pub fn request(&self, (method, era): (&str, Era), route: &str, outcome: &str) {
        let labels = RequestLabels {
            method: known(method).to_owned(),
            era: era.as_str().to_owned(),
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
        self.calls.refused(reason);
        self.immediate
            .get_or_create(&ImmediateLabels {
                reason: reason.to_owned(),
                code: status.to_string(),
            })
            .inc();
    }

    /// Observes one operation of the shared session store.
    pub fn store(&self, operation: &str, good: bool, elapsed: Duration) {
        let label = OperationLabel {
            op: operation.to_owned(),
        };
        if !good {
            self.store_errors.get_or_create(&label).inc();
        }
        self.store_seconds
            .get_or_create(&label)
            .observe(elapsed.as_secs_f64());
    }

    /// Sets the gauges that follow the catalog.
    pub fn follow(&self, servers: &[ServerGauges], config_hash: &str) {
        self.servers.follow(servers);
        let label = HashLabel {
            hash: config_hash.to_owned(),
        };
        let Ok(mut shown) = self.config_shown.lock() else {
            return;
        };
        if let Some(before) = shown.as_ref().filter(|before| **before != label) {
            self.config.remove(before);
        }
        if !config_hash.is_empty() {
            self.config.get_or_create(&label).set(1);
        }
        *shown = Some(label);
    }

    /// Counts a config update.
    pub fn reload(&self, good: bool) {
        let result = if good { "success" } else { "failure" };
        self.reloads
            .get_or_create(&ResultLabel {
                result: result.to_owned(),
            })
            .inc();
        if good {
            self.last_config.set(jiff::Timestamp::now().as_second());
        }
    }

    /// The number of running processes of a server.
    pub fn children(&self, server: &str) -> Gauge {
        let label = ServerLabel {
            server: server.to_owned(),
        };
        self.children.get_or_create_owned(&label)
    }

    /// Says of how many issuers the keys are not as they should be.
    pub fn key_problems(&self, issuers: &[KeyProblem]) {
        let count = |issuers: usize| i64::try_from(issuers).unwrap_or(i64::MAX);
        let missing = issuers.iter().filter(|issuer| !issuer.usable);
        self.key_problems.set(count(issuers.len()));
        self.keys_missing.set(count(missing.count()));
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
        metrics.request(("tools/call", Era::Legacy), "forward", "ok");
        metrics.request(("evil\"}\n1", Era::Modern), "broker", "ok");
        let text = metrics.text();
        assert!(text.contains(r#"mcp_router_requests_total{method="tools/call",era="legacy",route="forward",outcome="ok"} 1"#), "{text}");
        assert!(text.contains(r#"method="other",era="modern""#) && !text.contains("evil"));
    }

    #[test]
    fn old_keys_and_missing_keys_are_counted_apart() {
        let metrics = Metrics::default();
        let problem = |usable| KeyProblem {
            usable,
            ..KeyProblem::default()
        };
        metrics.key_problems(&[problem(true), problem(false), problem(true)]);
        let text = metrics.text();
        assert!(text.contains("mcp_auth_issuers_without_fresh_keys 3\n"), "{text}");
        assert!(text.contains("mcp_auth_issuers_without_keys 1\n"), "{text}");
    }
}
