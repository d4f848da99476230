//! The world that requests are judged over, fed by watches. One owner writes it (`watch::Sender`), readers borrow it
//! for the time of a pure judgement. An object that cannot be decoded is reported and left out, never fatal.

use std::collections::BTreeSet;

use mcp_gateway_api::{intake::Watched, world::World};
use tokio::sync::watch;

pub(crate) mod feed;

/// What the watches know.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The objects.
    pub world: World,
    /// Kinds that were listed completely, or that the cluster does not serve.
    pub synced: BTreeSet<Watched>,
    /// Whether the cluster serves kind EnvoyFilter; `None` while that is not known.
    pub envoy_filter_served: Option<bool>,
}

/// Reads the latest snapshot.
#[derive(Clone, Debug)]
pub struct WorldReader(watch::Receiver<Snapshot>);

impl WorldReader {
    /// A reader and the writer that feeds it.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> (watch::Sender<Snapshot>, Self) {
        let (sender, receiver) = watch::channel(snapshot);
        (sender, Self(receiver))
    }

    /// Judges over the world; `judge` must be quick, because writers wait for it.
    pub fn read<T>(&self, judge: impl FnOnce(&World) -> T) -> T {
        judge(&self.0.borrow().world)
    }

    /// True once every kind was listed.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.0.borrow().synced.len() == Watched::ALL.len()
    }

    /// Whether the cluster serves kind EnvoyFilter.
    #[must_use]
    pub fn envoy_filter_served(&self) -> Option<bool> {
        self.0.borrow().envoy_filter_served
    }
}
