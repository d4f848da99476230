//! What the metrics say of a server in the catalog.

use super::catalog::Server;
use crate::telemetry::server_metrics::{ItemGauges, ServerGauges};
use crate::upstreams::items::ItemKind;
use crate::upstreams::snapshot::State;

impl Server {
    /// The gauges of this server.
    pub fn gauges(&self) -> ServerGauges {
        let count = |kind: ItemKind| {
            let published = self.published.get(kind as usize).copied().unwrap_or(0);
            let conflicting = self
                .conflicts
                .iter()
                .filter(|conflict| conflict.kind == kind.word());
            ItemGauges {
                kind: kind.word(),
                published,
                invalid: self.snapshot.items.of(kind).invalid_count,
                conflicting: conflicting.count() as u64,
            }
        };
        ServerGauges {
            name: self.config.name.clone(),
            up: self.snapshot.state == State::Ready,
            failures: self.snapshot.failures,
            tools: self.snapshot.items.tools.items.len() as u64,
            items: ItemKind::ALL.map(count).into(),
        }
    }
}
