//! Metrics of sessions: those of clients, and those with MCP servers that belong to them (data-plane.md 18.2). A gauge
//! counts what this replica made; the sum over the replicas is what there is.

use super::metrics::{Histograms, ServerLabel, histograms};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InitLabels {
    server: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Sessions with MCP servers that are open, by server; clones count together.
#[derive(Clone, Default)]
pub struct OpenBackends(Family<ServerLabel, Gauge>);

impl OpenBackends {
    fn of(&self, server: &str) -> Gauge {
        let label = ServerLabel {
            server: server.to_owned(),
        };
        self.0.get_or_create_owned(&label)
    }

    /// One more.
    pub fn opened(&self, server: &str) {
        self.of(server).inc();
    }

    /// One less.
    pub fn closed(&self, server: &str) {
        self.of(server).dec();
    }
}

/// The metrics.
pub struct SessionMetrics {
    /// Client sessions made.
    pub created: Counter,
    ended: Family<ReasonLabel, Counter>,
    /// Client sessions that this replica made and that are neither ended nor expired.
    pub active: Gauge,
    inits: Family<InitLabels, Counter>,
    init_seconds: Histograms<ServerLabel>,
    /// Sessions with servers that this replica opened and that are not over.
    pub backends: OpenBackends,
}

impl Default for SessionMetrics {
    fn default() -> Self {
        Self {
            created: Counter::default(),
            ended: Family::default(),
            active: Gauge::default(),
            inits: Family::default(),
            init_seconds: histograms(),
            backends: OpenBackends::default(),
        }
    }
}

impl SessionMetrics {
    /// Registers all of them.
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "mcp_session_created",
            "Client sessions made",
            self.created.clone(),
        );
        to.register(
            "mcp_session_ended",
            "Client sessions ended, by their client (delete) or by time (expired)",
            self.ended.clone(),
        );
        to.register(
            "mcp_sessions_active",
            "Client sessions that this replica made and that are neither ended nor expired",
            self.active.clone(),
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
        to.register(
            "mcp_session_backend_active",
            "Backend sessions that this replica opened and that are not over",
            self.backends.0.clone(),
        );
    }

    /// Counts client sessions that were ended by their client.
    pub fn deleted(&self) {
        self.over("delete", 1);
    }

    /// Counts client sessions whose time is over.
    pub fn expired(&self, sessions: u64) {
        self.over("expired", sessions);
    }

    fn over(&self, reason: &'static str, sessions: u64) {
        self.ended.get_or_create(&ReasonLabel { reason }).inc_by(sessions);
    }

    /// Counts the opening of a backend session.
    pub fn backend_init(&self, server: &str, opened: bool, elapsed: Duration) {
        let label = ServerLabel {
            server: server.to_owned(),
        };
        self.init_seconds
            .get_or_create(&label)
            .observe(elapsed.as_secs_f64());
        let labels = InitLabels {
            server: label.server,
            outcome: if opened { "ok" } else { "unavailable" },
        };
        self.inits.get_or_create(&labels).inc();
    }
}
