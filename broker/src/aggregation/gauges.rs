//! What the metrics say of a server in the catalog.

use super::catalog::Server;
use crate::telemetry::server_metrics::ServerGauges;
use crate::upstreams::items::ItemKind;
use crate::upstreams::snapshot::State;

impl Server {
    /// The gauges of this server.
    pub fn gauges(&self) -> ServerGauges {
        let count = |kind: ItemKind| {
            let published = self.published.get(kind as usize).copied().unwrap_or(0);
            (kind.word(), published, self.snapshot.items.of(kind).invalid_count)
        };
        ServerGauges {
            name: self.config.name.clone(),
            up: self.snapshot.state == State::Ready,
            failures: self.snapshot.failures,
            conflicts: self.conflicts.len() as u64,
            tools: self.snapshot.items.tools.items.len() as u64,
            items: ItemKind::ALL.map(count).to_vec(),
        }
    }
}
