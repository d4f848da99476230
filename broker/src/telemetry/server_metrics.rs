//! Metrics by MCP server: what the catalog says of it, and the checks of its connection.

use super::metrics::{Histograms, histograms};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerNameLabel {
    server_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ItemLabels {
    server_name: String,
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DiscoveryLabels {
    server_name: String,
    status: String,
}

/// The gauges of one server.
pub struct ServerGauges {
    /// Server name.
    pub name: String,
    /// The last check succeeded.
    pub up: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Tools that the server listed.
    pub tools: u64,
    /// Its items by kind.
    pub items: Vec<ItemGauges>,
}

/// The items of one kind of a server.
pub struct ItemGauges {
    /// Word for the kind.
    pub kind: &'static str,
    /// Items that are published.
    pub published: u64,
    /// Items that do not validate.
    pub invalid: u64,
    /// Items whose name another server owns.
    pub conflicting: u64,
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Of whom there are gauges.
#[derive(Default)]
struct Shown {
    servers: HashSet<ServerNameLabel>,
    items: HashSet<ItemLabels>,
}

/// The metrics.
pub struct ServerMetrics {
    shown: Mutex<Shown>,
    up: Family<ServerNameLabel, Gauge>,
    failures: Family<ServerNameLabel, Gauge>,
    last_success: Family<ServerNameLabel, Gauge>,
    published: Family<ItemLabels, Gauge>,
    conflicting: Family<ItemLabels, Gauge>,
    invalid: Family<ItemLabels, Gauge>,
    tools: Family<ServerNameLabel, Gauge>,
    discoveries: Family<DiscoveryLabels, Counter>,
    discovery_seconds: Histograms<ServerNameLabel>,
    connection_failures: Family<ServerNameLabel, Counter>,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            shown: Mutex::default(),
            up: Family::default(),
            failures: Family::default(),
            last_success: Family::default(),
            published: Family::default(),
            conflicting: Family::default(),
            invalid: Family::default(),
            tools: Family::default(),
            discoveries: Family::default(),
            discovery_seconds: histograms(),
            connection_failures: Family::default(),
        }
    }
}

impl ServerMetrics {
    /// Registers all of them.
    pub(super) fn register(&self, to: &mut Registry) {
        to.register(
            "mcp_broker_server_up",
            "1 when the last check succeeded",
            self.up.clone(),
        );
        to.register(
            "mcp_broker_server_consecutive_failures",
            "Failures in a row",
            self.failures.clone(),
        );
        to.register(
            "mcp_broker_server_last_success_timestamp_seconds",
            "When a check last succeeded, Unix seconds",
            self.last_success.clone(),
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
        to.register(
            "mcp_broker_items_invalid",
            "Items that do not validate",
            self.invalid.clone(),
        );
        to.register(
            "mcp_broker_tools_discovered",
            "Tools that the server lists",
            self.tools.clone(),
        );
        to.register(
            "mcp_broker_discovery",
            "Checks of servers",
            self.discoveries.clone(),
        );
        to.register(
            "mcp_broker_discovery_duration_seconds",
            "Time of a check",
            self.discovery_seconds.clone(),
        );
        let help = "Checks that found no connection";
        to.register(
            "mcp_broker_upstream_connection_failures",
            help,
            self.connection_failures.clone(),
        );
    }

    /// Sets the gauges that follow the catalog; series of servers that are gone go too. Those that stay are never away
    /// between, whoever reads them meanwhile.
    pub fn follow(&self, servers: &[ServerGauges]) {
        let mut now = Shown::default();
        for server in servers {
            let name = ServerNameLabel {
                server_name: server.name.clone(),
            };
            self.up.get_or_create(&name).set(i64::from(server.up));
            self.failures.get_or_create(&name).set(i64::from(server.failures));
            self.tools.get_or_create(&name).set(gauge(server.tools));
            for items in &server.items {
                let labels = ItemLabels {
                    server_name: server.name.clone(),
                    kind: items.kind.to_owned(),
                };
                let conflicting = self.conflicting.get_or_create_owned(&labels);
                conflicting.set(gauge(items.conflicting));
                self.published.get_or_create(&labels).set(gauge(items.published));
                self.invalid.get_or_create(&labels).set(gauge(items.invalid));
                now.items.insert(labels);
            }
            now.servers.insert(name);
        }
        let Ok(mut shown) = self.shown.lock() else { return };
        for name in shown.servers.difference(&now.servers) {
            for family in [&self.up, &self.failures, &self.last_success, &self.tools] {
                family.remove(name);
            }
        }
        for labels in shown.items.difference(&now.items) {
            self.published.remove(labels);
            self.invalid.remove(labels);
            self.conflicting.remove(labels);
        }
        *shown = now;
    }

    /// Counts one check of a server; `connected` is false when not even the connection stood.
    pub fn discovery(&self, server: &str, good: bool, connected: bool, elapsed: Duration) {
        let status = if good { "success" } else { "failure" };
        self.discoveries
            .get_or_create(&DiscoveryLabels {
                server_name: server.to_owned(),
                status: status.to_owned(),
            })
            .inc();
        let name = ServerNameLabel {
            server_name: server.to_owned(),
        };
        self.discovery_seconds
            .get_or_create(&name)
            .observe(elapsed.as_secs_f64());
        if good {
            let now = jiff::Timestamp::now().as_second();
            self.last_success.get_or_create(&name).set(now);
        }
        if !connected {
            self.connection_failures.get_or_create(&name).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn gauges(name: &str) -> ServerGauges {
        ServerGauges {
            name: name.to_owned(),
            up: true,
            failures: 0,
            tools: 1,
            items: vec![ItemGauges {
                kind: "tool",
                published: 1,
                invalid: 0,
                conflicting: 0,
            }],
        }
    }

    #[test]
    fn a_server_that_stays_is_seen_at_every_moment_and_one_that_is_gone_is_not() {
        let (metrics, mut registry) = (ServerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        metrics.follow(&[gauges("ns/stays"), gauges("ns/goes")]);
        assert_eq!(text().matches("ns/goes").count(), 6);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    metrics.follow(&[gauges("ns/stays")]);
                }
                over.store(true, Ordering::Release);
            });
            while !over.load(Ordering::Acquire) {
                assert_eq!(text().matches("ns/stays").count(), 6);
            }
        });
        assert!(!text().contains("ns/goes"));
    }
}
